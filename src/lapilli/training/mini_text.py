"""`mini-text`, the second built-in model: what it is, and the numbers of the run that makes it from nothing.

It begins with copying heads that are set by hand (`circuits.py`) and learns when to copy what: answers from passages,
the interventions of a registry's records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lapilli.checkpoints.generation import GenerationDefaults
from lapilli.checkpoints.load import Checkpoint, load_checkpoint
from lapilli.checkpoints.save import save_folder
from lapilli.config import LlavaConfig, RopeConfig, TextConfig
from lapilli.errors import TrainingError
from lapilli.inputs.prompt import PromptBuilder
from lapilli.inputs.templates import ChatTemplate
from lapilli.inputs.tokenizer import Tokenizer
from lapilli.model.llava import Llava
from lapilli.training.circuits import CONTENT, set_circuits, set_habits, shares_of
from lapilli.training.corpus import prose
from lapilli.training.distributed import join
from lapilli.training.exercises import Exercise, Exercises, TrialMaterial, heard_of, mixture, written
from lapilli.training.initialise import initialise
from lapilli.training.loop import run
from lapilli.training.recipe import LoopOptions
from lapilli.training.text_vocabulary import SPECIAL_TOKENS, alike_embeddings, build_text_vocabulary
from lapilli.training.tower import steps_ahead
from lapilli.training.vocabulary import BOS_ID, EOS_ID, PAD_ID

VOCABULARY_SIZE = 4096
LOOP = LoopOptions(
    steps=6000,
    rate=2e-3,
    rates={"language.embed": 5e-4, "language.head": 1e-3},
    warmup=20,
    floor=0.05,
    seed=71,
    optimizer="muon",
    log_every=10,
    save_minutes=2,
)
ROWS, LENGTH = 3, 512
DOUBTS_FROM = 4000
"""The step from which on some questions have no answer: before it can find one, a model says so to all of them."""
READ_WEIGHT = 0.1

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% elif message['role'] == 'assistant' %}ASSISTANT: {% endif %}"
    "{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %} {% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def text_config(vocab_size: int) -> TextConfig:
    """The decoder, once the vocabulary is known."""
    return TextConfig(
        family="llama",
        vocab_size=vocab_size,
        hidden_size=256,
        intermediate_size=704,
        num_layers=4,
        num_heads=4,
        num_kv_heads=4,
        head_dim=64,
        norm_eps=1e-5,
        max_positions=1024,
        rope=RopeConfig(theta=1e6),
        tie_embeddings=False,
        bos_id=BOS_ID,
        eos_ids=(EOS_ID,),
    )


def read_exercise(tokenizer: Tokenizer, exercise: Exercise) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (T) of an exercise as a prompt of the same messages gives them, and which the model has to say (T)."""
    before = f"{exercise.instruction} " if exercise.instruction else ""
    asked = tokenizer.encode(f"{before}USER: {exercise.question} ASSISTANT:", special=False)
    said = [*tokenizer.encode(f" {exercise.answer}", special=False), EOS_ID]
    ids = np.array([BOS_ID, *asked, *said], dtype=np.int64)
    return ids, np.arange(len(ids)) > len(asked)


@dataclass(frozen=True)
class Packed:
    """Rows of `length` + 1 tokens filled with exercises that are whole; those of a step depend on the step alone.

    From step `turn` on, `later` takes the place of `exercises`, where there is one.
    """

    tokenizer: Tokenizer
    exercises: Exercises
    rows: int
    length: int
    seed: int
    later: Exercises | None = None
    turn: int = 0

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids (R, T+1), what each token is (0 padding, 1 read, 2 said), and what a said one counts.

        A token of a short answer counts more: half of it is to find where the answer stands.
        """
        rng = np.random.default_rng([self.seed, step])
        ids_RT = np.full((self.rows, self.length + 1), PAD_ID, dtype=np.int64)
        kinds_RT = np.zeros((self.rows, self.length + 1), dtype=np.int64)
        counts_RT = np.ones((self.rows, self.length + 1), dtype=np.float32)
        ends, misses = [0] * self.rows, 0
        exercises = self.exercises if self.later is None or step < self.turn else self.later
        while misses < 4:
            ids, said = read_exercise(self.tokenizer, exercises(rng))
            room = [row for row in range(self.rows) if ends[row] + len(ids) <= self.length + 1]
            if not room:
                misses += 1
                continue
            row = max(room, key=lambda r: ends[r])
            place = slice(ends[row], ends[row] + len(ids))
            ids_RT[row, place], kinds_RT[row, place] = ids, 1 + said
            counts_RT[row, place] = min(2.0, (8 / said.sum()) ** 0.5)
            ends[row] += len(ids)
        return ids_RT, kinds_RT, counts_RT


class TextObjective:
    """Predict every token of packed exercises; a token that is read counts `read_weight` of one that is said."""

    def __init__(self, model: Llava, packed: Packed, *, read_weight: float) -> None:
        self.model, self.packed, self.read_weight = model, packed, read_weight

    def modules(self) -> Llava:
        return self.model

    def batches(self, first_step: int) -> Iterator[list[Tensor]]:
        # A list: the loop takes a tuple for pieces of one batch.
        for arrays in steps_ahead(self.packed, first_step, 0):
            yield [torch.from_numpy(array) for array in arrays]

    def loss(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """The weighted cross-entropy, that of what is read and of what is said, and the share said right."""
        ids_BT, kinds_BT, counts_BT = (part.to(self.model.device) for part in batch)
        positions_BT = torch.arange(ids_BT.shape[1] - 1, device=ids_BT.device).expand(len(ids_BT), -1)
        hidden_BTD = self.model(self.model.language.embed(ids_BT[:, :-1]), positions_BT)
        kinds_BT = kinds_BT[:, 1:]
        known_BT = kinds_BT > 0
        kinds_N, said_N = kinds_BT[known_BT], ids_BT[:, 1:][known_BT]
        scores_NV = self.model.logits(hidden_BTD[known_BT]).float()
        losses_N = F.cross_entropy(scores_NV, said_N, reduction="none")
        answers = kinds_N == 2
        weights_N = torch.where(answers, counts_BT[:, 1:][known_BT], self.read_weight)
        right = (scores_NV.detach().argmax(-1) == said_N)[answers].float().mean()
        return {
            "loss": (losses_N * weights_N).sum() / weights_N.sum(),
            "read": losses_N[~answers].mean(),
            "said": losses_N[answers].mean(),
            "right": right,
        }


@dataclass(frozen=True)
class TextWorkshop:
    """What a run shares: the material, the vocabulary, and the folder that keeps the work."""

    tokenizer: Tokenizer
    exercises: Exercises
    doubts: Exercises
    out: Path
    device: torch.device
    start: Llava | None = None

    @classmethod
    def open(
        cls, data: Path, trials: TrialMaterial, out: Path, device: torch.device, start: Path | None = None
    ) -> TextWorkshop:
        """Load the material; the vocabulary is made once and kept in `out/vocabulary`.

        `start` is a folder of an earlier `mini-text`: the run begins with its vocabulary and weights.
        """
        texts, folder = prose(data / "text"), out / "vocabulary"
        exercises, doubts = mixture(texts, trials, absent=0.0), mixture(texts, trials, absent=0.12)
        if start is not None:
            given = load_checkpoint(start, dtype=torch.float32)
            shop = cls(given.prompts.tokenizer, exercises, doubts, out, device, given.model)
            if given.config.text != text_config(shop.tokenizer.vocab_size):
                raise TrainingError(
                    f"{start} is another model than the one made here: begin with a `mini-text`, or anew"
                )
            return shop
        if not (folder / "tokenizer.json").exists():
            words = build_text_vocabulary([*texts, *written(exercises, seed=11, count=6000)], VOCABULARY_SIZE)
            roles = {"pad_token": PAD_ID, "bos_token": BOS_ID, "eos_token": EOS_ID}
            config = {role: SPECIAL_TOKENS[number] for role, number in roles.items()}
            Tokenizer.from_json(words, config=config).save(folder)
        return cls(Tokenizer.from_folder(folder), exercises, doubts, out, device)


def train_text(shop: TextWorkshop, *, minutes: float | None, loop: LoopOptions = LOOP) -> int:
    """The run; at its end, or when its minutes are over, the model is written to `out/model`. Returns the step."""
    model = fresh_model(shop.tokenizer, shop.exercises, loop.seed) if shop.start is None else shop.start
    packed = Packed(shop.tokenizer, shop.exercises, ROWS, LENGTH, loop.seed + 10, shop.doubts, DOUBTS_FROM)
    objective = TextObjective(model, packed, read_weight=READ_WEIGHT)
    step = run(objective, loop, shop.out / "text", minutes=minutes, device=shop.device)
    if join().leads:
        write_text_model(shop.tokenizer, model, shop.out / "model")
    return step


def fresh_model(tokenizer: Tokenizer, exercises: Exercises, seed: int) -> Llava:
    """A decoder that copies, and knows what usually follows what; it has learnt nothing."""
    config = text_config(tokenizer.vocab_size)
    model = Llava(LlavaConfig(text=config))
    initialise(model, seed, layers=config.num_layers)
    spelt = [tokenizer.token_bytes(token) for token in range(config.vocab_size)]
    heard = (read_exercise(tokenizer, one)[0] for one in heard_of(exercises, seed, 3000))
    ids_N = torch.from_numpy(np.concatenate(list(heard)))
    contents_VC = alike_embeddings(spelt, CONTENT.stop - CONTENT.start, seed)
    set_circuits(model.language, contents_VC, shares_of(ids_N, config.vocab_size), seed)
    set_habits(model.language, ids_N)
    return model


def write_text_model(tokenizer: Tokenizer, model: Llava, folder: Path) -> None:
    """The checkpoint folder of the model as it is, in bfloat16."""
    special = {"bos_token": SPECIAL_TOKENS[BOS_ID], "eos_token": SPECIAL_TOKENS[EOS_ID]}
    prompts = PromptBuilder(model.config, tokenizer, None, ChatTemplate.from_jinja(CHAT_TEMPLATE, special))
    checkpoint = Checkpoint(model.config, model.cpu(), prompts, GenerationDefaults(max_new_tokens=256))
    save_folder(checkpoint, folder, dtype=torch.bfloat16, replace=True)
