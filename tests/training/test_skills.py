import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lapilli.config import LlavaConfig, TextConfig, VisionConfig
from lapilli.inputs.tokenizer import Tokenizer
from lapilli.model.llava import Llava
from lapilli.training.corpus import ask
from lapilli.training.initialise import initialise
from lapilli.training.skills import Task, answerer, record, score, table
from lapilli.training.vocabulary import BOS_ID, EOS_ID, IMAGE_ID, build_vocabulary


def task(skill: str, question: str, *accept: str) -> Task:
    return Task(skill, np.zeros((16, 16, 3), dtype=np.uint8), question, frozenset(accept))


TASKS = [
    task("colour", "a", "Red."),
    task("count", "b", "Two."),
    task("colour", "c", "Gray.", "Grey."),
    task("colour", "d", "Blue."),
]
SAID = {"a": "Red.", "b": "Two", "c": "Grey.", "d": "A blue one."}


def parrot(pictures, questions):
    assert len(pictures) == len(questions) <= 2
    return [SAID[question] for question in questions]


def test_only_an_exact_answer_is_right() -> None:
    colour, count = score(parrot, TASKS, batch=2)

    assert (colour.skill, colour.right, colour.asked) == ("colour", 2, 3)
    assert colour.misses == (("d", "A blue one.", "Blue."),)
    assert (count.skill, count.right, count.asked) == ("count", 0, 1)


def test_the_table_gives_percent_and_counts() -> None:
    lines = table(score(parrot, TASKS, batch=2)).splitlines()

    assert lines == ["colour   66.7 %  (2 of 3)", "count     0.0 %  (0 of 1)"]


def test_every_scoring_leaves_its_line(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "unseen.jsonl"
    scores = score(parrot, TASKS, batch=2)
    record(scores, log, "style fluent3d")
    record(scores, log, "style fluent3d")

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["what"] for line in lines] == ["style fluent3d"] * 2
    assert lines[0]["scores"] == {"colour": [2, 3], "count": [0, 1]}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_json(build_vocabulary([], 300, whole=["USER ASSISTANT"]))


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Llava:
    vision = VisionConfig(
        family="siglip", hidden_size=32, intermediate_size=64, num_layers=1, num_heads=2, image_size=16, patch_size=8,
        activation="gelu_tanh", norm_eps=1e-6,
    )  # fmt: skip
    text = TextConfig(
        family="llama", vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_layers=2,
        num_heads=2, num_kv_heads=2, head_dim=16, norm_eps=1e-5, max_positions=128, tie_embeddings=False,
    )  # fmt: skip
    made = Llava(
        LlavaConfig(text=text, vision=vision, image_token_id=IMAGE_ID, feature_layers=(-1,), drop_class_token=False)
    )
    initialise(made, 1, layers=1)
    for block in made.language.blocks:
        # Sharp attention, so that a wrong position or a row's padding changes what is said.
        for part in (block.attention.q, block.attention.k, block.attention.v):
            part.weight.data *= 30
    return made.eval()


def test_answers_in_a_batch_are_the_answers_alone(model: Llava, tokenizer: Tokenizer) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(6)]
    questions = ["What?", "How many dogs are there, and where?", "a", "Why?", "What is in this picture?", "b c"]
    answer = answerer(model, tokenizer, longest=12)

    alone = [answer([picture], [question])[0] for picture, question in zip(pictures, questions, strict=True)]
    assert answer(pictures, questions) == alone
    assert len(set(alone)) > 1


def test_an_answer_is_what_reading_all_again_at_each_token_gives(model: Llava, tokenizer: Tokenizer) -> None:
    pixels_HWC = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    pixels_BCHW = torch.from_numpy(pixels_HWC).permute(2, 0, 1)[None] / 127.5 - 1.0
    ids = [BOS_ID, *ask(tokenizer, "What is this?", 4)]
    begun = len(ids)
    with torch.inference_mode():
        features = model.encode_images([(pixels_BCHW, (16, 16))])
        for _ in range(12):
            hidden_BTD = model(model.embed(torch.tensor([ids]), features), torch.arange(len(ids))[None])
            ids.append(int(model.logits(hidden_BTD[0, -1]).argmax()))

    assert EOS_ID not in ids
    assert IMAGE_ID not in ids[begun:]
    assert answerer(model, tokenizer, longest=12)([pixels_HWC], ["What is this?"]) == [
        tokenizer.decode(ids[begun:]).strip()
    ]


def test_an_answer_ends_at_its_end_token_and_never_holds_a_placeholder(model: Llava, tokenizer: Tokenizer) -> None:
    picture = np.zeros((16, 16, 3), dtype=np.uint8)
    eager, silent = copy.deepcopy(model), copy.deepcopy(model)
    for changed, wanted in ((eager, IMAGE_ID), (silent, tokenizer.token_id("</s>"))):
        head = changed.language.head
        changed.language.norm.weight.data.fill_(0.0)
        changed.language.head = torch.nn.Linear(head.in_features, head.out_features)
        changed.language.head.weight.data.zero_()
        changed.language.head.bias.data.zero_()
        changed.language.head.bias.data[wanted] = 9.0

    assert answerer(silent, tokenizer)([picture], ["What?"]) == [""]
    assert "<image>" not in answerer(eager, tokenizer, longest=3)([picture], ["What?"])[0]
