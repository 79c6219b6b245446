"""T81 to T83: registers' files, which come from strangers as all files do."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_server import CANARY, _Sink, no_leak
from made_register import ictrp_xml, made_record, page_of
from processes import memory

from lapilli.apps.trials.readers import read_trials
from lapilli.apps.trials.trial import Trial
from lapilli.compat.trials import TrialXMLLoader
from lapilli.errors import InputError

RECORD = "<Trial><TrialID>X1</TrialID><Condition>{}</Condition></Trial>"
DTDS = {
    "a file": '<!DOCTYPE r [<!ENTITY e SYSTEM "file://{secret}">]>',
    "a page": '<!DOCTYPE r [<!ENTITY e SYSTEM "http://127.0.0.1:{port}/e">]>',
    "a parameter": '<!DOCTYPE r [<!ENTITY % e SYSTEM "http://127.0.0.1:{port}/e"> %e;]>',
    "elsewhere": '<!DOCTYPE r SYSTEM "http://127.0.0.1:{port}/e.dtd">',
    "elsewhere, public": '<!DOCTYPE r PUBLIC "-//X" "http://127.0.0.1:{port}/e.dtd">',
    "small letters": '<!doctype r [<!entity e "x">]>',
    "with nothing between": '<!DOC\0TYPE r [<!ENTITY e SYSTEM "file://{secret}">]>',
}


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A secret, and a listener that nobody may find (O4)."""
    (tmp_path / "secret.txt").write_text(CANARY)
    sink = _Sink("127.0.0.1")
    yield {"secret": str(tmp_path / "secret.txt"), "port": str(sink.port)}
    assert sink.close() == 0, "O4"


def read(path: Path) -> tuple[list[Trial], list[str]]:
    told: list[str] = []
    return list(read_trials([path], problems=told.append)), told


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("dtd", DTDS)
def test_t81_a_dtd_in_a_register_s_file_is_refused(
    tmp_path: Path, watched: dict[str, str], dtd: str, encoding: str
) -> None:
    declared = DTDS[dtd].format(**watched)
    path = tmp_path / "a.xml"
    path.write_bytes(f'<?xml version="1.0"?>{declared}<r>{RECORD.format("&e;")}</r>'.encode(encoding))
    for call in (read, lambda path: TrialXMLLoader(path).load()):
        with pytest.raises(InputError, match="DTD not allowed") as refused:
            call(path)
        assert "\n" not in str(refused.value)
        assert no_leak(str(refused.value).replace(str(path), ""))


@pytest.mark.parametrize(
    "written",
    [
        '<xi:include href="{secret}" parse="text" xmlns:xi="http://www.w3.org/2001/XInclude"/>',
        '<xi:include href="http://127.0.0.1:{port}/x"/>',
        '<?xml-stylesheet type="text/xsl" href="http://127.0.0.1:{port}/x.xsl"?>',
        '<!DOCTYPE r [<!ENTITY e SYSTEM "file://{secret}">]>&e;',
        '<xsl:value-of select="document(\'{secret}\')" xmlns:xsl="http://www.w3.org/1999/XSL/Transform"/>',
        "<![CDATA[&e;]]>",
    ],
)
def test_t81_what_a_record_names_is_not_read(tmp_path: Path, watched: dict[str, str], written: str) -> None:
    path = tmp_path / "a.xml"
    inside = written.format(**watched)
    path.write_text(f'<?xml-stylesheet href="http://127.0.0.1:{watched["port"]}/y.xsl"?><r>{RECORD.format(inside)}</r>')
    trials, told = read(path)
    assert [trial.id for trial in trials] == ["X1"]
    assert CANARY not in json.dumps([trial.to_json() for trial in trials]) + "".join(told)


def _many(unit: str, count: int) -> Callable[[], Iterator[bytes]]:
    def parts() -> Iterator[bytes]:
        yield b"<r><Trial><TrialID>X1</TrialID><Condition>"
        piece = unit.encode() * 1000
        for _ in range(count // 1000):
            yield piece
        yield b"</Condition></Trial></r>"

    return parts


LARGE = {
    "a text of 600 MB": (_many("a" * 100, 6_000_000), "larger than the"),
    "elements without number": (_many("<a>b</a>", 1_000_000), "tags, at most"),
    "ends that are hidden": (_many("<!--</Trial>-->", 500_000), "comments and tags like its own"),
    "ends that are none": (_many("</Trials>", 500_000), "comments and tags like its own"),
    "beginnings without an end": (_many("<Trial>", 300_000), "have no end"),
}


@pytest.mark.parametrize("case", LARGE)
def test_t82_records_that_blow_up_are_refused_at_once(tmp_path: Path, case: str) -> None:
    parts, words = LARGE[case]
    path = tmp_path / "a.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.xml", "w", force_zip64=True) as member,
    ):
        for part in parts():
            member.write(part)
    before, began = memory(os.getpid()), time.process_time()
    with pytest.raises(InputError, match=words):
        read(path)
    assert time.process_time() - began < 10
    assert memory(os.getpid()) - before < 64 << 20, "O2"


@pytest.mark.parametrize(
    "inside",
    [
        "<a>" * 100_000, "&a;" * 100_000, "&#65;" * 100_000,
        "<a " + " ".join(f"a{n}='1'" for n in range(100_000)) + ">x</a>",
    ],
    ids=["depth", "entities", "numbers", "attributes"],
)  # fmt: skip
def test_t82_a_record_that_is_odd_costs_itself_alone(tmp_path: Path, inside: str) -> None:
    path = tmp_path / "a.xml"
    whole = b"".join(ictrp_xml([made_record(1)])).decode()
    path.write_text(whole.replace("<Trial>", RECORD.format(inside) + "<Trial>", 1))
    before, began = memory(os.getpid()), time.process_time()
    trials, _ = read(path)
    assert time.process_time() - began < 5
    assert memory(os.getpid()) - before < 64 << 20, "O2"
    assert [trial.id for trial in trials] == ["X1", made_record(1)["TrialID"]]


@pytest.mark.parametrize("start", ["[", '{"a":', '{"protocolSection":[', '{"studies":[['])
def test_t83_studies_as_deep_as_they_like_are_told_of(tmp_path: Path, start: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(start * 100_000)
    began = time.process_time()
    trials, told = read(path)
    assert time.process_time() - began < 5
    assert trials == []
    assert told
    path.write_text(page_of(1).replace('"hasResults": false', f'"hasResults": {"[" * 100_000}'))
    _, told = read(path)
    assert any("nested deeper" in line for line in told)
