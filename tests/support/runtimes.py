"""The same pictures and questions in three runtimes: lapilli, transformers, llama.cpp. All in float32.

A `Reply` holds what was said, the end token included, and the scores over the vocabulary at each of its tokens.
"""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from lapilli.checkpoints.load import load_checkpoint
from lapilli.checkpoints.quantize import quantize_checkpoint
from lapilli.checkpoints.save import save_gguf
from lapilli.engine.local import LocalModel
from lapilli.training.art import Art
from lapilli.training.synthetic import scene_at, skill_questions
from lapilli.training.vocabulary import IMAGE_ID as IMAGE_ID

LONGEST = 64
GENERAL = ("What is in this picture?", "Describe the picture.", "Do you know who drew this painting?")


@dataclass(frozen=True)
class Asked:
    """A question about a picture."""

    picture: Image.Image
    question: str

    @property
    def prompt(self) -> str:
        """As it is written for `mini`, and for LLaVA 1.5."""
        return f"USER: <image>\n{self.question} ASSISTANT:"


@dataclass(frozen=True)
class Reply:
    """What was said, and why: tokens (with the end token) and the scores each was chosen by."""

    token_ids: tuple[int, ...]
    scores_TV: npt.NDArray[np.float32] = field(repr=False)
    prompt_ids: tuple[int, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Difference:
    """The first token in which two replies differ, and how far apart the two choices were in each."""

    number: int
    place: int
    ours: int
    theirs: int
    our_gap: float
    their_gap: float


def drawn(count: int, *, seed: int = 7, art: Art | None = None) -> list[Asked]:
    """Held-out drawings of the tower's own size, a question about each; shapes and words in Pillow's own font."""
    art = art or Art.load(None, fonts=())
    asked = []
    for number in range(count):
        scene = scene_at(number, seed, art, "test")
        questions = [*(question.text for question in skill_questions(scene)), *GENERAL]
        asked.append(Asked(scene.image, questions[number % len(questions)]))
    return asked


SQUARES = ((256, 256), (97, 97), (64, 64), (300, 300))
OBLONGS = ((200, 120), (90, 160), (131, 57), (64, 128))


def resized(asked: Sequence[Asked], sizes: Sequence[tuple[int, int]] = (*SQUARES, *OBLONGS)) -> list[Asked]:
    """The same at other sizes (width, height): larger, smaller, wide, tall, odd."""
    return [
        Asked(item.picture.resize(sizes[number % len(sizes)], Image.Resampling.BICUBIC), item.question)
        for number, item in enumerate(asked)
    ]


def ask_lapilli(model: LocalModel, asked: Sequence[Asked]) -> list[Reply]:
    """All together through `generate`; the scores are those of reading prompt and answer again."""
    answers = model.generate([x.prompt for x in asked], [x.picture for x in asked], max_tokens=LONGEST)
    (end,) = model.tokenizer.eos_ids
    replies = []
    for item, answer in zip(asked, answers, strict=True):
        said = (*answer.token_ids, *([end] if answer.finish_reason == "stop" else []))
        replies.append(reread(model, item, said))
    return replies


@torch.inference_mode()
def reread(model: LocalModel, item: Asked, said: tuple[int, ...]) -> Reply:
    prompt = model.prompts.raw(item.prompt, [item.picture])
    images = [(torch.from_numpy(image.pixels_TCHW), (image.height, image.width)) for image in prompt.images]
    ids_BT = torch.tensor([[*prompt.token_ids, *said[:-1]]])
    hidden_BTD = model.model(
        model.model.embed(ids_BT, model.model.encode_images(images)), torch.arange(ids_BT.shape[1])[None]
    )
    scores_TV = model.model.logits(hidden_BTD)[0, len(prompt.token_ids) - 1 :].numpy()
    return Reply(said, scores_TV, tuple(prompt.token_ids))


class Transformers:
    """LlavaForConditionalGeneration and AutoProcessor from the same folder."""

    def __init__(self, folder: Path, *, batch: int = 10) -> None:
        from transformers import AutoProcessor, LlavaForConditionalGeneration

        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        self.batch = batch

    def ask(self, asked: Sequence[Asked]) -> list[Reply]:
        """The calls of the article, a batch at once."""
        replies: list[Reply] = []
        for start in range(0, len(asked), self.batch):
            replies += self._ask(asked[start : start + self.batch])
        return replies

    @torch.inference_mode()
    def _ask(self, asked: Sequence[Asked]) -> Iterator[Reply]:
        prompts, pictures = [x.prompt for x in asked], [x.picture for x in asked]
        inputs = self.processor(text=prompts, images=pictures, padding=True, return_tensors="pt")
        output = self.model.generate(**inputs, max_new_tokens=LONGEST, output_logits=True, return_dict_in_generate=True)
        begun = inputs["input_ids"].shape[1]
        scores_BTV = torch.stack(output.logits, dim=1).float().numpy()
        end = self.model.generation_config.eos_token_id
        ends = end if isinstance(end, list) else [end]
        for ids_T, mask_T, scores_TV in zip(
            output.sequences.tolist(), inputs["attention_mask"], scores_BTV, strict=True
        ):
            said = ids_T[begun:]
            length = next((place + 1 for place, token in enumerate(said) if token in ends), len(said))
            prompt = ids_T[begun - int(mask_T.sum()) : begun]
            yield Reply(tuple(said[:length]), scores_TV[:length], tuple(prompt))


class LlamaCpp:
    """llama.cpp on the F32 GGUF that we export, through llama-cpp-python's handler for LLaVA 1.5."""

    def __init__(self, folder: Path, work: Path, mixture: str | None = None) -> None:
        """In float32, or as `lapilli quantize` writes it in a mixture of types."""
        import llama_cpp
        from llama_cpp import mtmd_cpp
        from llama_cpp.llama_chat_format import Llava15ChatHandler

        self._quiet = llama_cpp.llama_log_callback(  # kept: C holds only its address
            lambda level, text, data: None
        )
        mtmd_cpp.mtmd_log_set(self._quiet, None)
        mtmd_cpp.mtmd_helper_log_set(self._quiet, None)

        class Handler(Llava15ChatHandler):  # type: ignore[misc]
            """The same, but with the blanks and line ends of the prompt that the model is trained on."""

            DEFAULT_SYSTEM_MESSAGE = None
            CHAT_FORMAT = (
                "{% for message in messages %}USER: "
                "{% for part in message.content %}{% if part.type == 'image_url' %}"
                "{{ part.image_url.url }}{{ '\\n' }}{% endif %}{% endfor %}"
                "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}"
                "{% endfor %}{{ ' ASSISTANT:' }}"
            )

        text, tower = work / "mini-f32.gguf", work / "mini-mmproj-f32.gguf"
        if mixture is None:
            save_gguf(load_checkpoint(folder, dtype=torch.float32), text, tower, type="F32")
        else:
            text, tower = quantize_checkpoint(folder, work / f"mini-{mixture}.gguf", mixture).files
        self._library = llama_cpp
        self._handler = Handler(str(tower), verbose=False)
        self.model = llama_cpp.Llama(
            str(text), chat_handler=self._handler, n_ctx=512, n_threads=1, n_threads_batch=1, n_gpu_layers=0,
            type_k=0, type_v=0, logits_all=False, verbose=False, flash_attn=False,
        )  # fmt: skip

    def close(self) -> None:
        self.model.close()

    def ask(self, asked: Sequence[Asked]) -> list[Reply]:
        """One at a time through `create_chat_completion`; pictures travel as PNG."""
        return [self._ask(item) for item in asked]

    def _ask(self, item: Asked) -> Reply:
        heard: list[npt.NDArray[np.float32]] = []
        prompts: list[tuple[int, ...]] = []

        def listen(ids_T: npt.NDArray[np.int32], scores_V: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            if not heard:
                prompts.append(tuple(int(token) for token in self.model.input_ids[: self.model.n_tokens]))
            heard.append(np.array(scores_V, np.float32))
            return scores_V

        content = [
            {"type": "image_url", "image_url": {"url": _data_url(item.picture)}},
            {"type": "text", "text": item.question},
        ]
        self.model.create_chat_completion(
            [{"role": "user", "content": content}], temperature=0.0, max_tokens=LONGEST,
            logits_processor=self._library.LogitsProcessorList([listen]),
        )  # fmt: skip
        scores_TV = np.stack(heard)
        return Reply(tuple(scores_TV.argmax(-1).tolist()), scores_TV, prompts[0])


@contextlib.contextmanager
def llama_cpp_of(folder: Path, work: Path, mixture: str | None = None) -> Iterator[LlamaCpp]:
    with contextlib.closing(LlamaCpp(folder, work, mixture)) as runtime:
        yield runtime


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def differences(ours: Sequence[Reply], theirs: Sequence[Reply]) -> list[Difference]:
    """Where replies part, each with the gap between the two choices: a near-tie has a small one in both."""
    found = []
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        places = range(min(len(one.token_ids), len(other.token_ids)))
        place = next((i for i in places if one.token_ids[i] != other.token_ids[i]), None)
        if place is None:
            if one.token_ids != other.token_ids:
                raise AssertionError(f"reply {number} ends early without an end token")
            continue
        mine, yours = one.token_ids[place], other.token_ids[place]
        found.append(
            Difference(
                number, place, mine, yours,
                float(one.scores_TV[place, mine] - one.scores_TV[place, yours]),
                float(other.scores_TV[place, yours] - other.scores_TV[place, mine]),
            )
        )  # fmt: skip
    return found


def farthest(ours: Sequence[Reply], theirs: Sequence[Reply]) -> float:
    """The largest difference between scores, over all tokens before the replies part."""
    most = 0.0
    for one, other in zip(ours, theirs, strict=True):
        pairs = zip(one.token_ids, other.token_ids, strict=False)
        same = next((i + 1 for i, (a, b) in enumerate(pairs) if a != b), min(len(one.token_ids), len(other.token_ids)))
        most = max(most, float(np.abs(one.scores_TV[:same] - other.scores_TV[:same]).max()))
    return most


def nearest_tie(replies: Sequence[Reply]) -> float:
    """The smallest lead of a chosen token over the next best."""
    best_two = [np.partition(reply.scores_TV, -2, axis=-1)[:, -2:] for reply in replies]
    return min(float((pair[:, 1] - pair[:, 0]).min()) for pair in best_two)
