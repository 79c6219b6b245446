"""Training data in every shape that people have it; what is wrong is said with file, record and reason."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lapilli import TrainingError
from lapilli.inputs.chat import ImagePart, TextPart, show
from lapilli.training.talks import Loose, Talk, open_talks


def png(colour: str = "red", size: tuple[int, int] = (8, 6)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def record(**changes: Any) -> dict[str, Any]:
    asked = {"from": "human", "value": "<image>\nWhat colour?"}
    return {"id": "1", "image": "a.png", "conversations": [asked, {"from": "gpt", "value": "Red."}], **changes}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(png())
    return tmp_path


def write(folder: Path, *records: Any, lines: bool = False) -> Path:
    path = folder / ("my.jsonl" if lines else "my.json")
    path.write_text("\n\n".join(map(json.dumps, records)) + "\n" if lines else json.dumps(records))
    return path


@pytest.mark.parametrize("lines", [False, True])
def test_llavas_records(folder: Path, lines: bool) -> None:
    chat = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hé?"},
                         {"role": "assistant", "content": "Hé."}]}  # fmt: skip
    talks = open_talks(write(folder, record(), chat, lines=lines))
    assert len(talks) == 2
    assert talks[0].turns == (("user", "<image>\nWhat colour?"), ("assistant", "Red."))
    assert talks[1].turns == (("system", "Be brief."), ("user", "Hé?"), ("assistant", "Hé."))
    assert talks[0].pictures[0].read() == png()


def test_a_picture_stands_where_its_place_is(folder: Path) -> None:
    turns = [("user", "Before <image> and\n<image>"), ("assistant", "So <image> stays."), ("user", "<image>\nAfter"),
             ("assistant", "Yes.")]  # fmt: skip
    talk = Talk(tuple(turns), (Loose(folder / "a.png"),) * 3)  # type: ignore[arg-type]
    kinds = [
        [part.text if isinstance(part, TextPart) else ImagePart for part in message.parts]
        for message in talk.messages(lambda file: show(file.read()))
    ]
    assert kinds == [["Before ", ImagePart, " and", ImagePart], ["So <image> stays."], [ImagePart, "After"], ["Yes."]]


def test_a_picture_that_nobody_places_comes_first(folder: Path) -> None:
    asked = [{"from": "human", "value": "What colour?"}, {"from": "gpt", "value": "Red."}]
    assert open_talks(write(folder, record(conversations=asked)))[0].turns[0] == ("user", "<image>\nWhat colour?")


def test_captioned_pictures_and_shards_say_the_same(folder: Path) -> None:
    (folder / "a.txt").write_text("A red field.\n")
    with tarfile.open(folder / "0.tar", "w") as archive:
        for name, data in (("s/a.png", png()), ("s/a.txt", b"A red field.\n")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    shards = open_talks(folder / "0.tar")
    (folder / "pictures").mkdir()
    for name in ("a.png", "a.txt"):
        (folder / name).rename(folder / "pictures" / name)
    captions = open_talks(folder / "pictures")
    assert (len(shards), len(captions)) == (1, 1)
    assert (
        shards[0].turns
        == captions[0].turns
        == (("user", "<image>\nDescribe this picture."), ("assistant", "A red field."))
    )
    assert shards[0].pictures[0].read() == captions[0].pictures[0].read() == png()
    assert (shards.where(0), captions.where(0)) == ("0.tar: s/a", "a.png")
    assert len(open_talks(folder)) == 1  # a folder of shards


def test_science_qa_is_learnt_as_it_is_asked(folder: Path) -> None:
    problem = {"question": "Which?", "choices": ["x", "y"], "answer": 1, "hint": "", "image": None, "lecture": "L.",
               "solution": "S.", "split": "train"}  # fmt: skip
    (folder / "problems.json").write_text(json.dumps({"7": problem, "8": {**problem, "split": "test"}}))
    talks = open_talks(folder)
    assert len(talks) == 1
    assert talks[0].turns == (
        ("user", "Context: N/A\nQuestion: Which?\nOptions: (A) x (B) y"),
        ("assistant", "LECTURE: L.\nSOLUTION: S.\nThe answer is B."),
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image": "b.png"}, "'b.png' is not in"),
        ({"image": "../a.png"}, "leads out of"),
        ({"image": "/etc/passwd"}, "leads out of"),
        ({"image": None}, "1 places <image> for 0 pictures"),
        ({"image": ["a.png", "a.png"]}, "1 places <image> for 2 pictures"),
        ({"conversations": []}, "no list `conversations`"),
        ({"conversations": [{"from": "robot", "value": "x"}]}, "speaker 'robot'"),
        ({"conversations": [{"from": "human", "value": 3}]}, "is int, not text"),
        ({"conversations": [{"from": "human", "value": "<image>"}]}, "nothing to learn"),
    ],
)
def test_a_wrong_record_is_named_with_its_place_and_reason(folder: Path, changes: dict[str, Any], told: str) -> None:
    for lines in (False, True):
        talks = open_talks(write(folder, record(), record(**changes), lines=lines))
        with pytest.raises(TrainingError, match=rf"^my\.jsonl?: (record|line) 2: .*{told}"):
            talks[1]


@pytest.mark.parametrize("content", ["", "{}", "[]", "[" * 100_000, "nothing", '{"a": 1}'])
def test_files_that_hold_no_records_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(TrainingError, match=r"^x\.json"):
        open_talks(path)


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no such file or folder"):
        open_talks(tmp_path / "none.json")
    with pytest.raises(TrainingError, match="holds no picture"):
        open_talks(tmp_path)
