"""What `mini-text` is made of: made passages and records, prose that asks about itself, heads that copy untaught."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import lapilli
from lapilli.apps.evals.mini_text import TextExamOptions, examine, trial_material, trial_questions
from lapilli.apps.trials import prompt
from lapilli.apps.trials.labels import read_labelled
from lapilli.apps.trials.schema import model_schema
from lapilli.config import LlavaConfig
from lapilli.engine.sampler import SamplingOptions
from lapilli.errors import TrainingError
from lapilli.inputs.chat import conversation
from lapilli.inputs.prompt import PromptBuilder
from lapilli.inputs.templates import ChatTemplate
from lapilli.inputs.tokenizer import Tokenizer
from lapilli.model.language import Decoder
from lapilli.training import exercises as made
from lapilli.training.circuits import set_circuits
from lapilli.training.cloze import NOT_THERE, ClozeQuestions, sentences
from lapilli.training.invented import person, split_of
from lapilli.training.loop import run
from lapilli.training.mini_text import (
    CHAT_TEMPLATE,
    Packed,
    TextObjective,
    fresh_model,
    read_exercise,
    text_config,
    write_text_model,
)
from lapilli.training.passages import MadePassages
from lapilli.training.recipe import LoopOptions
from lapilli.training.records import made_record
from lapilli.training.text_vocabulary import build_text_vocabulary
from lapilli.training.vocabulary import BOS_ID, EOS_ID

PROSE = "\n".join(
    f"In {1800 + n} the Council of Elders met at Bristol and the harbour was given to the town for {n} pounds. "
    f"Nobody had asked the fishermen about the price of salt. The mayor went home by the old road with Captain Brown."
    for n in range(60)
)


def exercises(seed: int, kind: made.Exercises, count: int) -> list[made.Exercise]:
    rng = np.random.default_rng(seed)
    return [kind(rng) for _ in range(count)]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> made.TrialMaterial:
    return trial_material(tmp_path_factory.mktemp("nothing"))


@pytest.fixture(scope="module")
def mixture(material: made.TrialMaterial) -> made.Mixture:
    return made.mixture([PROSE], material, absent=0.1)


@pytest.fixture(scope="module")
def tokenizer(mixture: made.Mixture) -> Tokenizer:
    words = build_text_vocabulary(made.written(mixture, 3, 400), 1500)
    return Tokenizer.from_json(words, config={"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"})


def test_the_same_seed_makes_the_same_exercises_and_another_seed_others(mixture: made.Mixture) -> None:
    assert exercises(1, mixture, 30) == exercises(1, mixture, 30)
    assert exercises(1, mixture, 30) != exercises(2, mixture, 30)


def test_an_answer_stands_in_its_passage_or_is_said_not_to() -> None:
    rng = np.random.default_rng(5)
    found = [MadePassages(absent=0.3)(rng) for _ in range(400)]
    absent = [one for one in found if one.answer == NOT_THERE]
    assert all(one.answer in one.passage for one in found if one.answer != NOT_THERE)
    assert 0.2 < len(absent) / len(found) < 0.4
    assert len({one.question for one in found}) > 380


def test_names_of_the_examination_are_never_trained_on() -> None:
    rng = np.random.default_rng(7)
    trained = {name for _ in range(300) for name in person(rng, "train").split()}
    examined = {name for _ in range(300) for name in person(rng, "test").split()}
    assert not trained & examined
    assert {split_of(name) for name in trained} == {"train"}


def test_prose_asks_about_itself() -> None:
    kind = made.Cloze(ClozeQuestions([sentences(PROSE)]))
    for one in exercises(3, kind, 100):
        assert one.answer == NOT_THERE or one.answer in one.question


def test_interventions_of_a_made_record_stand_in_its_text_as_they_are_spelt() -> None:
    rng = np.random.default_rng(9)
    types = set()
    for _ in range(300):
        record = made_record(rng)
        text = " ".join(record.fields.values()).lower()
        assert all(one.name.lower() in text for one in record.interventions)
        assert all(value.lower() in text for one in record.interventions for value in one.slots.values())
        types |= {one.type for one in record.interventions}
    assert len(types) >= 7


def test_a_record_is_asked_as_the_extractor_asks_and_answered_as_its_schema_wants(
    material: made.TrialMaterial,
) -> None:
    rng = np.random.default_rng(11)
    for _ in range(60):
        record = made_record(rng)
        pieces = made.trial_exercises(record, material)
        asked = [question.text for question in prompt.questions(record.fields, most=made.LONGEST_PIECE)]
        assert [one.question for one in pieces] == asked
        assert all(one.instruction == prompt.INSTRUCTION for one in pieces)
        for one in pieces:
            assert_follows(one.answer, one.question)


def assert_follows(answer: str, question: str) -> None:
    item = model_schema()["properties"]["interventions"]["items"]
    order = list(item["properties"])
    for row in json.loads(answer)["interventions"]:
        assert set(item["required"]) <= row.keys() <= item["properties"].keys()
        assert list(row) == sorted(row, key=order.index)
        assert row["type"] in item["properties"]["type"]["enum"]
        assert row["role"] in item["properties"]["role"]["enum"]
        assert row["name"] in question


def test_the_interventions_field_is_never_shown() -> None:
    fields = {"public_title": "A study", "interventions": "Drug: zorbimab", "summary": "It is about sleep."}
    assert "zorbimab" not in " ".join(trial_questions(fields, 1000))


def test_only_real_records_of_the_training_share_are_learnt_from(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    path = tmp_path / "trials" / "ctgov_labelled.jsonl"
    given = [{"type": "Drug", "name": "zorbimab", "other": []}]
    about = {"official_title": "", "conditions": ["Asthma"], "brief_summary": "On zorbimab.", "arms": ["zorbimab"]}
    rows = [{"id": f"NCT{n:08}", "brief_title": f"Study {n}", **about, "interventions": given} for n in range(40)]
    path.write_text("\n".join(map(json.dumps, rows)))
    held = {trial.fields["public_title"] for trial in read_labelled(path, "held")}
    trained = {record.fields["public_title"] for record in trial_material(tmp_path).records}
    assert held
    assert trained
    assert not held & trained
    assert len(held) + len(trained) == 40


def test_an_exercise_is_read_token_for_token_as_its_prompt(tokenizer: Tokenizer, material: made.TrialMaterial) -> None:
    config = LlavaConfig(text=text_config(tokenizer.vocab_size))
    template = ChatTemplate.from_jinja(CHAT_TEMPLATE, {"bos_token": "<s>", "eos_token": "</s>"})
    prompts = PromptBuilder(config, tokenizer, None, template)
    for one in (
        made.Exercise("Who are you?", "I am mini-text."),
        made.Exercise("Title: A\nSummary: B", made.trial_answer(()), material.instruction),
    ):
        system = [{"role": "system", "content": one.instruction}] if one.instruction else []
        prompt_ids = prompts.chat(conversation([*system, {"role": "user", "content": one.question}])).token_ids
        ids, said = read_exercise(tokenizer, one)
        assert ids[~said].tolist() == list(prompt_ids)
        assert ids[0] == BOS_ID
        assert ids[-1] == EOS_ID
        assert tokenizer.decode(ids[said].tolist()).strip() == one.answer


def test_rows_hold_whole_exercises_and_depend_on_the_step_alone(tokenizer: Tokenizer, mixture: made.Mixture) -> None:
    packed = Packed(tokenizer, mixture, rows=3, length=400, seed=1)
    ids_RT, kinds_RT, _ = packed(4)
    again_RT = packed(4)[0]
    assert ids_RT.shape == (3, 401)
    assert np.array_equal(ids_RT, again_RT)
    assert not np.array_equal(ids_RT, packed(5)[0])
    for ids_T, kinds_T in zip(ids_RT, kinds_RT, strict=True):
        filled = int((kinds_T > 0).sum())
        assert filled > 200
        assert (kinds_T[:filled] > 0).all()
        assert not kinds_T[filled:].any()
        assert ids_T[0] == BOS_ID
        assert ids_T[filled - 1] == EOS_ID
        assert (ids_T[kinds_T == 2] == EOS_ID).sum() == (ids_T == BOS_ID).sum()


def test_it_copies_before_it_has_learnt_anything(tokenizer: Tokenizer, mixture: made.Mixture) -> None:
    words = ("harbour", "zorbimab", "lantern", "Captain", "quilt", "ember", "fishermen", "velvet", "compass")
    said = right_share(fresh_model(tokenizer, mixture, 7), tokenizer, made.Copies(words))
    plain = fresh_model(tokenizer, mixture, 7)
    plain.language.load_state_dict(Decoder(plain.config.text).state_dict())
    assert said > 0.5
    assert right_share(plain, tokenizer, made.Copies(words)) < 0.1


def right_share(model: torch.nn.Module, tokenizer: Tokenizer, kind: made.Exercises) -> float:
    objective = TextObjective(model, Packed(tokenizer, kind, 2, 256, seed=5), read_weight=0.1)  # type: ignore[arg-type]
    with torch.no_grad():
        return float(objective.loss(next(objective.batches(0)))["right"])


def test_copying_heads_need_room() -> None:
    narrow = Decoder(replace(text_config(400), hidden_size=128))
    with pytest.raises(TrainingError, match="width of 256"):
        set_circuits(narrow, torch.randn(400, 96), torch.full((400,), 1 / 400), 1)


@pytest.fixture(scope="module")
def made_folder(tokenizer: Tokenizer, mixture: made.Mixture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "model"
    write_text_model(tokenizer, fresh_model(tokenizer, mixture, 7), folder)
    return folder


def test_a_short_run_learns(tokenizer: Tokenizer, mixture: made.Mixture, tmp_path: Path) -> None:
    objective = TextObjective(
        fresh_model(tokenizer, mixture, 7), Packed(tokenizer, mixture, 2, 256, 5), read_weight=0.1
    )
    loop = LoopOptions(steps=8, rate=2e-3, warmup=2, optimizer="muon", rates={"language.embed": 5e-4})
    before = loss_of(objective)
    assert run(objective, loop, tmp_path) == 8
    assert loss_of(objective) < before - 0.3


def test_its_folder_opens_here_and_in_transformers_with_the_same_answers(made_folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ours = lapilli.load(made_folder, device="cpu")
    theirs = AutoModelForCausalLM.from_pretrained(made_folder, dtype=torch.float32)
    words = AutoTokenizer.from_pretrained(made_folder)
    assert not ours.prompts.sees
    ours.checkpoint.model.float()
    for question in (
        "Repeat: the harbour and the lantern",
        "Who are you?",
        "Passage: Salt is dear.\nQuestion: What is dear?",
    ):
        asked = [{"role": "user", "content": question}]
        inputs = words.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        prompt = ours.prompts.chat(conversation(asked))
        # The template has no <s>; our prompts and the tokenizer's own encoding of a text begin with it.
        assert list(prompt.token_ids)[1:] == inputs["input_ids"][0].tolist()[-len(prompt.token_ids) + 1 :]
        ids_1T = torch.tensor([list(prompt.token_ids)])
        said = theirs.generate(
            input_ids=ids_1T, attention_mask=torch.ones_like(ids_1T), max_new_tokens=12, do_sample=False
        )
        answer = ours.complete([prompt], SamplingOptions(max_tokens=12))[0]
        assert list(answer.token_ids) == said[0, ids_1T.shape[1] :].tolist()


def loss_of(objective: TextObjective) -> float:
    with torch.no_grad():
        return float(objective.loss(next(objective.batches(100)))["loss"])


def test_shares_add_up_to_every_kind(mixture: made.Mixture) -> None:
    found = exercises(13, mixture, 400)
    starts = {"Repeat:": 0, "Title:": 0}
    for one in found:
        for start in starts:
            starts[start] += one.question.startswith(start)
    assert min(starts.values()) >= 5
    assert sum(one.answer == NOT_THERE for one in found) >= 10


def test_it_is_examined_from_end_to_end(made_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    given = [{"type": "Drug", "name": "zorbimab", "other": []}]
    about = {"official_title": "", "conditions": ["Asthma"], "brief_summary": "On zorbimab.", "arms": ["zorbimab"]}
    rows = [{"id": f"NCT{n:08}", "brief_title": f"Study {n}", **about, "interventions": given} for n in range(9)]
    (tmp_path / "trials" / "ctgov_labelled.jsonl").write_text("\n".join(map(json.dumps, rows)))
    asked = {"context": "Salt is dear.", "qas": [{"question": "What is dear?", "answers": [{"text": "Salt"}]}]}
    (tmp_path / "qa.json").write_text(json.dumps({"data": [{"paragraphs": [asked]}]}))
    results = examine(
        lapilli.load(made_folder, device="cpu"), tmp_path, tmp_path / "qa.json", TextExamOptions(each=3, batch=2)
    )
    assert results.asked["passages"] == 3
    assert results.asked["qa"] == 1
    assert 0 < results.asked["trials"] < 9
    assert results.measures["qa"]["F1 of the best sentence"] == 0.5
    assert results.measures["trials"]["recall over all names, rules"] == 1.0
    assert "F1 of names in the text" in str(results)
