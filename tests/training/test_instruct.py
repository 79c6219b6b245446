from dataclasses import dataclass
from itertools import islice
from typing import get_args

import numpy as np
import pytest
import torch

from lapilli.config import LlavaConfig, TextConfig, VisionConfig
from lapilli.inputs.tokenizer import Tokenizer
from lapilli.model.llava import Llava
from lapilli.training.corpus import Dialogue
from lapilli.training.initialise import initialise
from lapilli.training.instruct import InstructObjective, InstructOptions, Lesson, Trained, instruct_batch
from lapilli.training.loop import run
from lapilli.training.recipe import LoopOptions
from lapilli.training.skills import answerer
from lapilli.training.vocabulary import BOS_ID, EOS_ID, IMAGE_ID, build_vocabulary

COLOURS = {"red": (230, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 230)}


@dataclass(frozen=True)
class ColourLessons:
    """A picture of one colour and what colour it is; each fourth lesson has no picture."""

    def __call__(self, number: int) -> Lesson:
        if number % 4 == 3:
            return Lesson(Dialogue((("Hello", "Show me."),), pictured=False))
        colour = list(COLOURS)[int(np.random.default_rng(number).integers(3))]
        turns = (("What colour is it?", f"It is {colour}."), ("Is it red?", "Yes." if colour == "red" else "No."))
        return Lesson(Dialogue(turns[: 1 + number % 2]), picture(colour))


def picture(colour: str) -> np.ndarray:
    return np.full((16, 16, 3), COLOURS[colour], dtype=np.uint8)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    said = "USER ASSISTANT: What colour is it? It is red. green. blue. Is it red? Yes. No. Hello Show me."
    return Tokenizer.from_json(build_vocabulary([], 400, whole=[said]))


def model(tokenizer: Tokenizer) -> Llava:
    vision = VisionConfig(
        family="siglip", hidden_size=32, intermediate_size=64, num_layers=1, num_heads=2, image_size=16, patch_size=8,
        activation="gelu_tanh", norm_eps=1e-6,
    )  # fmt: skip
    text = TextConfig(
        family="llama", vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_layers=2,
        num_heads=2, num_kv_heads=2, head_dim=16, norm_eps=1e-5, max_positions=128, tie_embeddings=True,
        bos_id=BOS_ID, eos_ids=(EOS_ID,),
    )  # fmt: skip
    made = Llava(
        LlavaConfig(text=text, vision=vision, image_token_id=IMAGE_ID, feature_layers=(-1,), drop_class_token=False)
    )
    initialise(made, 0, layers=2)
    return made


def objective(tokenizer: Tokenizer, train: Trained = "projector+language", workers: int = 0) -> InstructObjective:
    options = InstructOptions(batch=8, workers=workers)
    return InstructObjective(model(tokenizer), tokenizer, ColourLessons(), options, train=train)


def test_a_padded_batch_has_the_loss_of_its_rows_alone(tokenizer: Tokenizer) -> None:
    goal = objective(tokenizer)
    lessons = [ColourLessons()(number) for number in range(5)]
    together = goal.loss(instruct_batch(tokenizer, lessons, 4))["loss"]
    weighed, count = torch.zeros(()), 0
    for lesson in lessons:
        alone = instruct_batch(tokenizer, [lesson], 4)
        spoken = int(alone.spoken_BT.sum())
        weighed = weighed + goal.loss(alone)["loss"] * spoken
        count += spoken

    assert torch.allclose(together, weighed / count, atol=1e-5)


def test_only_answers_and_their_end_are_learnt(tokenizer: Tokenizer) -> None:
    lesson = Lesson(Dialogue((("What colour is it?", "It is red."), ("Is it red?", "Yes."))), picture("red"))
    batch = instruct_batch(tokenizer, [lesson], 4)

    said = tokenizer.decode(batch.ids_BT[batch.spoken_BT].tolist(), skip_special=False)
    assert said == " It is red.</s> Yes.</s>"


@pytest.mark.parametrize("train", get_args(Trained))
def test_what_learns_is_what_was_asked_for(tokenizer: Tokenizer, train: Trained) -> None:
    goal = objective(tokenizer, train)
    goal.loss(next(goal.batches(0)))["loss"].backward()

    moved = {name.split(".")[0] for name, p in goal.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == set(train.split("+"))


def test_pictures_in_a_batch_go_to_their_own_rows(tokenizer: Tokenizer) -> None:
    goal = objective(tokenizer)
    lessons = [ColourLessons()(number) for number in (0, 3, 1, 2)]
    batch = instruct_batch(tokenizer, lessons, 4)

    assert len(batch.pixels_PHWC) == 3
    shuffled = instruct_batch(tokenizer, [lessons[number] for number in (2, 0, 1, 3)], 4)
    assert torch.allclose(goal.loss(batch)["loss"], goal.loss(shuffled)["loss"], atol=1e-5)


def test_workers_draw_the_same_batches_and_a_cut_run_goes_on(tokenizer: Tokenizer) -> None:
    whole = list(islice(objective(tokenizer).batches(0), 4))
    drawn = list(islice(objective(tokenizer, workers=1).batches(2), 2))

    for ours, theirs in zip(whole[2:], drawn, strict=True):
        assert np.array_equal(ours.ids_BT, theirs.ids_BT)
        assert np.array_equal(ours.spoken_BT, theirs.spoken_BT)
        assert np.array_equal(ours.pixels_PHWC, theirs.pixels_PHWC)


def test_a_model_learns_to_say_what_it_sees(tokenizer: Tokenizer, tmp_path) -> None:
    goal = objective(tokenizer)
    before = {name: p.clone() for name, p in goal.model.vision.named_parameters()}
    run(goal, LoopOptions(steps=200, rate=6e-3, warmup=20, bf16=False, weight_decay=0.0), tmp_path / "tune")

    answer = answerer(goal.model, tokenizer)
    pictures, questions = [picture(colour) for colour in COLOURS], ["What colour is it?"] * 3
    assert answer(pictures, questions) == [f"It is {colour}." for colour in COLOURS]
    assert all(torch.equal(p, before[name]) for name, p in goal.model.vision.named_parameters())
