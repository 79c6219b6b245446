"""Batch: every question of every picture has its row, in order; a picture is opened and encoded once."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from parrot_backend import ParrotBackend
from PIL import Image

from lapilli import __version__
from lapilli.apps import batch
from lapilli.apps.backend.call import Call
from lapilli.apps.batch import COLUMNS, Answering, Asking, Questions, run_batch
from lapilli.apps.executors.local import LocalExecutor
from lapilli.apps.executors.processes import ProcessExecutor
from lapilli.apps.jobs.export import export
from lapilli.apps.jobs.job import Job
from lapilli.errors import EngineGoneError, InputError, LapilliError
from lapilli.faces.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in (("red.png", "red"), ("blue.png", "blue")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbut no more")
    return tmp_path


def write(folder: Path, *lines: Any) -> Path:
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def colours(call: Call) -> str:
    """What is asked, and which pictures are shown with it."""
    shown = [str(image.getpixel((0, 0))) for image in call.messages[-1].images]
    return f"{call.messages[-1].text} {' '.join(shown)}".strip()


def asked(path: Path, backend: ParrotBackend, **more: Any) -> list[dict[str, Any]]:
    work = Asking(backend, path.parent, **more)
    return [dict(row) for rows in work.rows(Questions.read(path).each()) for row in rows]


def test_each_question_of_each_picture_has_a_row_in_order(folder: Path) -> None:
    path = write(
        folder,
        {"image": "red.png", "questions": ["a?", "b?"], "id": "first"},
        "",
        {"images": ["red.png", "blue.png"], "question": "c?"},
        {"images": [["blue.png", "red.png"]], "question": "d?"},
        {"question": "e?"},
    )
    rows = asked(path, ParrotBackend(colours))
    red, blue = "(255, 0, 0)", "(0, 0, 255)"
    assert [(row["line"], row["id"], row["images"], row["answer"]) for row in rows] == [
        (1, "first", ["red.png"], f"a? {red}"),
        (1, "first", ["red.png"], f"b? {red}"),
        (3, "3", ["red.png"], f"c? {red}"),
        (3, "3", ["blue.png"], f"c? {blue}"),
        (4, "4", ["blue.png", "red.png"], f"d? {blue} {red}"),
        (5, "5", [], "e?"),
    ]
    assert {row["finish"] for row in rows} == {"stop"}
    assert all(set(row) <= set(COLUMNS) for row in rows)


def test_a_picture_is_opened_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[bytes] = []
    monkeypatch.setattr(batch, "show", lambda data, show=batch.show: (opened.append(data), show(data))[1])
    asked(write(folder, {"image": "red.png", "questions": list("abcdefgh")}), ParrotBackend(colours))
    assert len(opened) == 1


def test_what_a_line_asks_for_reaches_the_model(folder: Path) -> None:
    backend = ParrotBackend(lambda call: '{"colour": "red"}' if call.schema else "one two three")
    options = {"max_tokens": 2, "temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": "x"}
    rows = asked(
        write(
            folder,
            {"question": "a?", "system": "Be brief.", "options": options},
            {"question": "b?", "schema": {"type": "object"}},
        ),
        backend,
    )
    first, second = backend.calls
    assert [message.text for message in first.messages] == ["Be brief.", "a?"]
    assert {name: getattr(first, name) for name in options} == {**options, "stop": ("x",)}
    assert (rows[0]["answer"], rows[0]["finish"], rows[0]["tokens"]) == ("one two", "length", 2)
    assert second.schema == {"type": "object"}
    assert rows[1]["value"] == {"colour": "red"}


def test_what_fails_is_told_in_its_own_rows(folder: Path) -> None:
    def answers(call: Call) -> str:
        if "bad" in call.messages[-1].text:
            raise LapilliError("the prompt is\ntoo long")
        return "fine"

    path = write(
        folder,
        {"image": "broken.png", "questions": ["a?", "b?"]},
        {"image": "nowhere.png", "question": "c?"},
        {"images": ["red.png", "broken.png"], "questions": ["good?", "bad?"]},
        {"question": "d?", "schema": {"type": "string"}},
        {"image": "broken.png", "question": "e?"},
    )
    rows = asked(path, ParrotBackend(answers))
    assert [row["question"] for row in rows] == ["a?", "b?", "c?", "good?", "bad?", "good?", "bad?", "d?", "e?"]
    assert [row["answer"] if "answer" in row else row["error"].partition(":")[0] for row in rows] == [
        "broken.png", "broken.png", "nowhere.png", "fine", "the prompt is too long", "broken.png", "broken.png",
        "fine", "broken.png",
    ]  # fmt: skip
    assert rows[2]["error"] == "nowhere.png: No such file or directory"
    assert rows[7]["value"] is None


@pytest.mark.parametrize("each", [1, 2])
def test_a_machine_that_is_gone_ends_the_run_and_one_that_stumbles_does_not(folder: Path, each: int) -> None:
    def answers(call: Call) -> str:
        if int(call.messages[-1].text) % each == 0:
            raise EngineGoneError("the process ended")
        return "fine"

    path = write(folder, *({"question": str(number)} for number in range(60)))
    if each == 1:
        with pytest.raises(EngineGoneError, match="the process ended"):
            asked(path, ParrotBackend(answers))
    else:
        assert ["error" in row for row in asked(path, ParrotBackend(answers))] == [True, False] * 30


def test_carried_pictures_have_the_same_rows(folder: Path) -> None:
    lines: tuple[Any, ...] = (
        {"image": "red.png", "question": "a?"}, {"image": "broken.png", "question": "b?"},
        {"image": "nowhere.png", "question": "c?"},
    )  # fmt: skip
    questions = Questions.read(write(folder, *lines))
    carried = [batch.with_pictures(item, folder) for item in questions.each()]
    assert json.loads(json.dumps(carried)) == carried
    here, there = Asking(ParrotBackend(colours), folder), Asking(ParrotBackend(colours), Path("/nowhere"))
    assert list(here.rows(questions.each())) == list(there.rows(iter(carried)))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"question": "a?", "imgae": "red.png"}, "'imgae' is not known; did you mean image?"),
        ({"image": "red.png"}, "needs either question or questions"),
        ({"question": "a?", "questions": ["b?"]}, "needs either question or questions"),
        ({"questions": []}, "needs either question or questions"),
        ({"question": " "}, "a question is empty"),
        ({"question": 3}, "question must be str, it is int"),
        ({"question": "a?", "image": "a", "images": ["b"]}, "needs either image or images"),
        ({"question": "a?", "images": [[]]}, "a picture must be str, it is NoneType"),
        ({"question": "a?", "images": "red.png"}, "images must be list, it is str"),
        ({"question": "a?", "options": {"temprature": 1}}, "option 'temprature' is not known"),
        ({"question": "a?", "options": {"seed": True}}, "option seed must be int, it is bool"),
        ({"question": "a?", "schema": "x"}, "schema must be dict, it is str"),
        ([], "must be an object, it is list"),
        ("{", "Expecting"),
        ("[" * 100_000, "is nested too deep"),
        ('{"question": "\\ud800"}', "half a surrogate"),
    ],
)
def test_a_line_that_cannot_be_asked_is_refused_before_anything_is(folder: Path, line: Any, said: str) -> None:
    with pytest.raises(InputError, match=rf"jobs.jsonl, line 2: .*{said}"):
        Questions.read(write(folder, {"question": "a?"}, line))


def test_a_file_without_questions_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="asks nothing"):
        Questions.read(write(folder, ""))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Jobs for mini: three pictures, and one that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, colour in enumerate(("red", "blue", "green")):
        picture = Image.new("RGB", (64, 64), "white")
        picture.paste(colour, (8 * number, 8, 40 + 8 * number, 40))
        picture.save(folder / f"{number}.png")
    write(
        folder,
        *({"image": f"{n}.png", "questions": ["What colour is it?", "What is this?"], "options": {"max_tokens": 6}}
          for n in range(4)),
        {"question": "Say a word.", "schema": {"type": "string", "maxLength": 6}, "options": {"max_tokens": 16}},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def answers(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What mini answers here, one shard after another."""
    out = tmp_path_factory.mktemp("out") / "here"
    questions = Questions.read(pictures / "jobs.jsonl")
    report = run_batch(questions, out, Answering(window=1), executor=LocalExecutor(), shard=2)
    assert (report.items, report.rows, report.failed, report.made) == (5, 9, 2, 3)
    return exported(out)


def exported(out: Path) -> bytes:
    written = io.BytesIO()
    with Job.at(out) as job:
        export(job.rows(), COLUMNS, "jsonl", written)
    return written.getvalue()


def test_the_rows_are_the_same_whoever_asks_and_however_many_at_once(
    pictures: Path, answers: bytes, tmp_path: Path
) -> None:
    questions = Questions.read(pictures / "jobs.jsonl")
    run_batch(questions, tmp_path / "many", Answering(), executor=ProcessExecutor(1), shard=3, carry=True)
    assert exported(tmp_path / "many") == answers
    rows = [json.loads(line) for line in answers.splitlines()]
    assert [row["error"] is not None for row in rows] == [False] * 6 + [True] * 2 + [False]
    assert isinstance(rows[-1]["value"], str)


def test_another_model_where_the_work_is_done_is_refused(pictures: Path) -> None:
    settings = {"answering": vars(Answering()), "digest": "0" * 64, "folder": str(pictures)}
    with pytest.raises(InputError, match=r"mini is [0-9a-f]{12} here, and 000000000000 where the job was begun"):
        batch.open_questions(settings)


def test_the_command_asks_goes_on_and_exports(
    pictures: Path, answers: bytes, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    jobs, out = str(pictures / "jobs.jsonl"), str(tmp_path / "out")
    assert main(["batch", jobs, "--out", out, "--limit", "2", "--shard", "2", "--json"]) == 0
    report = json.loads(capfdbinary.readouterr().out)
    assert (report["items"], report["rows"], report["made"]) == (2, 4, 1)
    assert main(["batch", "export", out]) == 0
    captured = capfdbinary.readouterr()
    assert captured.out == b"".join(answers.splitlines(keepends=True)[:4])
    assert b"no run has come to the end yet: 2 items are done" in captured.err
    assert main(["batch", jobs, "--out", out, "--shard", "2"]) == 0
    assert b"1 of 3 parts were there already" in capfdbinary.readouterr().out
    assert main(["batch", "export", out, "--to", str(tmp_path / "rows.jsonl")]) == 0
    assert (tmp_path / "rows.jsonl").read_bytes() == answers
    assert capfdbinary.readouterr() == (b"", b"")
    assert main(["batch", jobs, "--out", out, "--shard", "4"]) == 2
    assert b"shard was 2, now it is 4" in capfdbinary.readouterr().err
    assert main(["batch", "export", out, "--format", "xlsx"]) == 2


def test_the_version_is_part_of_what_a_job_is_for(
    pictures: Path, answers: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = Questions.read(pictures / "jobs.jsonl")
    out = tmp_path / "out"
    run_batch(questions, out, Answering(), executor=LocalExecutor(lambda _: Silent()))
    monkeypatch.setattr("lapilli.__version__", "99")
    with pytest.raises(InputError, match=f'lapilli was "{__version__}", now it is "99"'):
        run_batch(questions, out, Answering(), executor=LocalExecutor(lambda _: Silent()))


class Silent:
    """Work that says nothing, at once."""

    def rows(self, items: Any) -> Iterator[list[dict[str, Any]]]:
        return ([{"line": item["line"]} for _ in item["questions"]] for item in items)

    def close(self) -> None:
        pass
