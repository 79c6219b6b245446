"""A model in this process: `model = lapilli.load("mini")`, then ask."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack, cast

import torch
from torch import Tensor

from lapilli.checkpoints.load import Checkpoint, load_checkpoint
from lapilli.checkpoints.mixture import Quantization
from lapilli.engine.answer import Answer, Chunk
from lapilli.engine.engine import Engine, EngineOptions
from lapilli.engine.grammar import Constraint
from lapilli.engine.intake import Intake
from lapilli.engine.sampler import SamplingKeywords, SamplingOptions
from lapilli.engine.scores import Scored, answers_after, embed, rank
from lapilli.errors import InputError, PromptError
from lapilli.inputs.chat import Message, TextPart, conversation
from lapilli.inputs.prompt import Prompt, PromptBuilder
from lapilli.model.device import choose_device
from lapilli.store.reference import resolve

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LocalModel:
    """A loaded model that answers.

    model.chat("What is in this picture?", images=["photo.png"])   # one answer
    for chunk in model.stream("Tell me more."): ...                # its text as it is made
    model.generate(["USER: <image>\\nWhat is this?\\nASSISTANT:"], images=[picture])  # raw prompts, batched
    """

    def __init__(self, checkpoint: Checkpoint, engine: EngineOptions | None = None) -> None:
        self.checkpoint = checkpoint
        self.model = checkpoint.model.eval()
        self.config = checkpoint.config
        self.prompts = checkpoint.prompts
        self.tokenizer = checkpoint.prompts.tokenizer
        self.engine = Engine(checkpoint, engine)

    def chat(
        self,
        prompt_or_messages: Any,
        images: Sequence[Any] = (),
        *,
        system: str | None = None,
        options: SamplingOptions | None = None,
        constraint: Constraint | None = None,
        **sampling: Unpack[SamplingKeywords],
    ) -> Answer:
        """Answer a question or a conversation; what people wrote is never taken for markup.

        `prompt_or_messages` is a text, or messages as OpenAI, Ollama or transformers write them; `images` are paths,
        bytes or Pillow pictures. `constraint` is the form that the answer must have. Raises PromptError, ImageError or
        InputError.
        """
        for chunk in self.stream(
            prompt_or_messages, images, system=system, options=options, constraint=constraint, **sampling
        ):
            if chunk.answer is not None:
                return chunk.answer
        raise AssertionError("a stream always ends with its answer")

    def stream(
        self,
        prompt_or_messages: Any,
        images: Sequence[Any] = (),
        *,
        system: str | None = None,
        options: SamplingOptions | None = None,
        constraint: Constraint | None = None,
        **sampling: Unpack[SamplingKeywords],
    ) -> Iterator[Chunk]:
        """The same as `chat`, in pieces of text as they are made; the last piece carries the whole answer."""
        prompt = self.prompt(prompt_or_messages, images, system=system)
        begun = False
        for chunk in self.engine.stream(self.engine.submit(prompt, self._options(options, sampling), constraint)):
            # The blank between the cue and the first word belongs to the format, not to the answer.
            text, answer = chunk.text if begun else chunk.text.lstrip(), chunk.answer
            begun = begun or bool(text)
            answer = answer and dataclasses.replace(answer, text=answer.text.lstrip())
            yield dataclasses.replace(chunk, text=text, answer=answer)

    def prompt(self, prompt_or_messages: Any, images: Sequence[Any] = (), *, system: str | None = None) -> Prompt:
        """What the model reads when it is asked this; the arguments are those of `chat`."""
        messages = conversation(prompt_or_messages, images)
        if system:
            messages = [Message("system", (TextPart(system),)), *messages]
        return self.prompts.chat(messages)

    def generate(
        self,
        prompts: str | Sequence[str],
        images: Sequence[Any] = (),
        *,
        options: SamplingOptions | None = None,
        constraint: Constraint | None = None,
        **sampling: Unpack[SamplingKeywords],
    ) -> list[Answer]:
        """Go on from raw prompts, all together; `<image>` stands for a picture.

        `images` go to the placeholders in order, over all prompts, or are given as one list a prompt. Raises
        PromptError where placeholders and pictures differ in number.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not texts:
            raise PromptError("no prompt was given: give at least one")
        shares = self._share(texts, images)
        built = [self.prompts.raw(text, share) for text, share in zip(texts, shares, strict=True)]
        return self.complete(built, self._options(options, sampling), constraint)

    def complete(
        self, prompts: Sequence[Prompt], options: SamplingOptions, constraint: Constraint | None = None
    ) -> list[Answer]:
        """Answers to prompts that are built already (`model.prompts`), all together."""
        jobs = [self.engine.submit(prompt, options, constraint) for prompt in prompts]
        answers = {job: chunk.answer for job, chunk in self.engine.stream_all(jobs) if chunk.answer is not None}
        return [answers[job] for job in jobs]

    def rank(self, prompt_or_messages: Any, answers: Sequence[str], images: Sequence[Any] = ()) -> list[Scored]:
        """How likely each of these answers is, in the order given, without saying any; see `Scored`.

        Raises PromptError where none is given, or an empty one.
        """
        prompt, ids = answers_after(self.prompts, conversation(prompt_or_messages, images), answers)
        return rank(self.model, prompt, ids, features=self.features(prompt))

    def embed(self, text: str = "", images: Sequence[Any] = ()) -> Tensor:
        """One vector of length 1, float32 (D), for a text, pictures (`<image>` where each stands), or both."""
        prompt = self.prompts.raw(text or "<image>" * len(images), images)
        return embed(self.model, prompt, features=self.features(prompt))

    def features(self, prompt: Prompt) -> list[Tensor]:
        """The features (N, D) of a prompt's pictures, each encoded once."""
        with torch.inference_mode():
            return [self.engine.sight.features(image) for image in prompt.images]

    def _options(self, options: SamplingOptions | None, sampling: SamplingKeywords) -> SamplingOptions:
        """What was asked for; an answer that nobody limited is limited as its checkpoint recommends."""
        chosen = _merged(options, sampling)
        if chosen.max_tokens is not None:
            return chosen
        return dataclasses.replace(chosen, max_tokens=self.checkpoint.generation.max_new_tokens)

    def _share(self, texts: list[str], images: Sequence[Any]) -> list[list[Any]]:
        """Which pictures belong to which prompt."""
        if images and all(isinstance(item, list | tuple) for item in images):
            if len(images) != len(texts):
                raise PromptError(f"{len(texts)} prompts, but {len(images)} lists of pictures: give one list a prompt")
            return [list(item) for item in images]
        counts = [self.prompts.count_placeholders(text) for text in texts]
        if sum(counts) != len(images):
            raise PromptError(
                f"the prompts have {sum(counts)} image placeholders, {len(images)} pictures were given: "
                "write <image> once for each picture"
            )
        given = iter(images)
        return [[next(given) for _ in range(count)] for count in counts]


def load(
    name_or_path: str | Path,
    quantize: str | None = None,
    device: str = "auto",
    *,
    load_in_4bit: bool = False,
    load_in_8bit: bool = False,
    dtype: str | torch.dtype | None = None,
    projector: str | Path | None = None,
    adapter: str | Path | None = None,
    vision_tower: str | Path | None = None,
    engine: EngineOptions | None = None,
) -> LocalModel:
    """Load a model by name ("mini", or one in the store), from a checkpoint folder, or from a GGUF file.

    `quantize` is "int8" or "int4": matrices are rounded while they are read, on a CPU; `load_in_4bit` and
    `load_in_8bit` are its names in transformers. `device="auto"` takes a GPU where there is one. `dtype` is float32 on
    a CPU unless named (weights are stored as they are on a GPU); where it is not named, a GGUF file's quantized
    matrices are computed with as they are. `projector` is the mmproj file of a GGUF model, found by itself when it lies
    beside it; `adapter` is a LoRA folder in PEFT's layout; `vision_tower` is the CLIP folder that an original LLaVA
    names, found by itself when it lies in or beside the model's; `engine` says how much goes on at once. Of a model in
    the store its template and its adapter count, its system text and parameters do not.
    Raises ModelNotFoundError, CheckpointError or InputError.
    """
    bits = _bits(quantize, load_in_4bit, load_in_8bit)
    reference = resolve(name_or_path)
    checkpoint = open_checkpoint(
        reference.path,
        quantize=bits,
        device=device,
        dtype=dtype,
        projector=projector or reference.projector,
        adapter=adapter or _only(reference.adapters, reference.name),
        vision_tower=vision_tower,
    )
    if reference.template is not None:
        own = checkpoint.prompts
        template = Intake(checkpoint, reference.template, None).template
        prompts = PromptBuilder(checkpoint.config, own.tokenizer, own.image_processor, template)
        checkpoint = dataclasses.replace(checkpoint, prompts=prompts)
    return LocalModel(checkpoint, engine)


def open_checkpoint(
    path: Path,
    *,
    quantize: str | None = None,
    device: str = "auto",
    dtype: str | torch.dtype | None = None,
    projector: str | Path | None = None,
    adapter: str | Path | None = None,
    vision_tower: str | Path | None = None,
) -> Checkpoint:
    """Open the files of a model, with the words of `load`; no name is looked up."""
    chosen = choose_device(device)
    return load_checkpoint(
        path,
        dtype=_dtype(dtype, chosen),
        device=chosen,
        projector=projector,
        adapter=adapter,
        vision_tower=vision_tower,
        # Whether there is such a number of bits, `load_checkpoint` says.
        quantize=cast(Quantization | None, quantize),
        expand=quantize is None and (dtype is not None or chosen.type != "cpu"),
    )


def _only(adapters: Sequence[Path], name: str) -> Path | None:
    if len(adapters) > 1:
        raise InputError(f"{name} has {len(adapters)} adapters: one is the most that can be merged")
    return adapters[0] if adapters else None


def _bits(quantize: str | None, load_in_4bit: bool, load_in_8bit: bool) -> str | None:
    asked = [quantize, "int4" if load_in_4bit else None, "int8" if load_in_8bit else None]
    wanted = {bits for bits in asked if bits is not None}
    if len(wanted) > 1:
        raise InputError(f"{' and '.join(sorted(wanted))} were both asked for: choose one")
    return wanted.pop() if wanted else None


def _merged(options: SamplingOptions | None, sampling: SamplingKeywords) -> SamplingOptions:
    unknown = sampling.keys() - {item.name for item in dataclasses.fields(SamplingOptions)}
    if unknown:
        known = ", ".join(item.name for item in dataclasses.fields(SamplingOptions))
        raise InputError(f"{', '.join(sorted(unknown))}: no such sampling option; there are {known}")
    return dataclasses.replace(options or SamplingOptions(), **sampling)


def _dtype(name: str | torch.dtype | None, device: torch.device) -> torch.dtype | None:
    if isinstance(name, torch.dtype):
        return name
    if name is None:
        return torch.float32 if device.type == "cpu" else None
    if name not in DTYPES:
        raise InputError(f"dtype {name!r} is not known: use {', '.join(DTYPES)}")
    return DTYPES[name]
