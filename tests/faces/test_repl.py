"""The conversation at a terminal: keys typed into it, what the server is asked, and what is shown."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from parrot_server import SEER, ParrotServer, serving
from PIL import Image
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from lapilli.errors import ModelNotFoundError
from lapilli.faces.answer import Told, duration_text, tell
from lapilli.faces.client import Client, Reply
from lapilli.faces.conversation import Session
from lapilli.faces.repl import Repl, is_open, unblocked
from lapilli.faces.repl_keys import RecentHistory
from lapilli.faces.terminal import Wrapping

ENTER, LEAVE = "\r", "\x04"


@pytest.fixture(scope="module")
def parrot() -> Iterator[ParrotServer]:
    with serving(ParrotServer()) as up:
        yield up


@pytest.fixture
def server(parrot: ParrotServer) -> ParrotServer:
    return parrot.reset()


class Talk:
    """A conversation in which keys are typed; `out` is what the person read, `err` the remarks beside it."""

    def __init__(self, server: ParrotServer, tmp_path: Path) -> None:
        self.server = server
        self.history = tmp_path / "data" / "history"
        self.session = Session(model="parrot")
        self.out = self.err = ""
        self.editor = "vi"
        self.pause = 0.5

    def type(self, *lines: str) -> Talk:
        """Type lines, each with Enter, then Ctrl-D."""
        return self.press("".join(line + ENTER for line in lines) + LEAVE)

    def press(self, *keys: str) -> Talk:
        """Press keys, with a pause between one lot and the next."""
        out, err = io.StringIO(), io.StringIO()
        with (
            create_pipe_input() as keyboard,
            create_app_session(input=keyboard, output=DummyOutput()),
            Client(httpx2.Client(base_url=self.server.url), self.server.url) as client,
        ):
            repl = Repl(
                client, self.session, fetch=self.fetch, history=self.history, editor=self.editor, out=out, err=err
            )
            timers = [threading.Timer(self.pause * n, keyboard.send_text, [lot]) for n, lot in enumerate(keys)]
            for timer in timers:
                timer.start()
            repl.run()
            for timer in timers:
                timer.join()
        self.out, self.err = out.getvalue(), err.getvalue()
        return self

    def fetch(self, name: str) -> None:
        raise ModelNotFoundError(f"no model {name!r} is here")

    def sent(self) -> list[list[dict[str, Any]]]:
        """The messages of each question."""
        return [body["messages"] for body in self.server.bodies("/api/chat")]


@pytest.fixture
def talk(server: ParrotServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Talk:
    monkeypatch.chdir(tmp_path)
    return Talk(server, tmp_path)


def picture(path: Path) -> Path:
    Image.new("RGB", (8, 8), "red").save(path)
    return path


# --- turns ---


def test_turns_follow_each_other(talk: Talk) -> None:
    talk.type("one two", "", "three")
    assert talk.out == "one two \n\nthree \n\n\n"
    user, said = {"role": "user", "content": "one two"}, {"role": "assistant", "content": "one two "}
    assert talk.sent() == [[user], [user, said, {"role": "user", "content": "three"}]]
    assert talk.server.bodies("/api/generate") == [{"model": "parrot"}]


def test_several_turns_are_about_one_picture(talk: Talk, tmp_path: Path) -> None:
    picture(tmp_path / "my photo.png")
    talk.type(r"What is in ./my\ photo.png ?", "And what else?", f"'{tmp_path}/my photo.png' again")
    assert talk.out.count("[1 pictures]") == 2
    assert talk.out.count("[2 pictures]") == 1
    assert talk.err.splitlines()[0] == "Added image './my photo.png'"
    first, second, third = talk.sent()
    assert first[0]["content"] == "What is in ?"
    assert [len(message.get("images", ())) for message in third] == [1, 0, 0, 0, 1]
    assert second[0] == first[0]


def test_a_line_that_begins_with_a_picture_is_no_command(talk: Talk, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    talk.type(f"{path} what is it?", "./missing.png what?", "/missing.png what?")
    assert [len(messages[-1].get("images", ())) for messages in talk.sent()] == [1, 0]
    assert "there is no file ./missing.png" in talk.err
    assert "Unknown command '/missing.png'. Type /? for help" in talk.out


def test_a_model_without_eyes_gets_the_path_as_text(talk: Talk, tmp_path: Path) -> None:
    talk.server.models["blind:latest"] = {**SEER, "capabilities": ["completion"]}
    talk.session.model = "blind"
    picture(tmp_path / "a.png")
    talk.type("./a.png")
    assert talk.sent() == [[{"role": "user", "content": "./a.png"}]]


def test_a_picture_that_cannot_be_opened_is_told_and_nothing_is_sent(talk: Talk, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    talk.type("./a.png what?", "still here")
    assert "a.png" in talk.err
    assert [messages[-1]["content"] for messages in talk.sent()] == ["still here"]


def test_an_error_keeps_the_session_and_takes_its_turn_back(talk: Talk) -> None:
    talk.type("busy", "break", "cut", "well")
    assert [line for line in talk.err.splitlines() if line.startswith("error")] == [
        "error: server busy",
        "error: the model's process has ended",
        "error: the server ended the answer before it was whole",
    ]
    # What was said before it broke stays, as it was read.
    assert [message["content"] for message in talk.sent()[-1]] == ["break", "break ", "cut", "cut ", "well"]


def test_messages_of_the_modelfile_are_replayed(talk: Talk) -> None:
    talk.server.models["parrot:latest"]["messages"] = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
    ]
    talk.type("Well?")
    assert talk.out.startswith(">>> Hi\n\nHo\n\n")
    assert talk.sent() == [[{"role": "user", "content": "Well?"}]]  # the server puts the others before


# --- keys ---


def test_three_quotes_begin_and_end_a_message_of_several_lines(talk: Talk) -> None:
    talk.type('"""one', "two", 'three"""', '"""', "four", '"""')
    assert [messages[-1]["content"] for messages in talk.sent()] == ["one\ntwo\nthree", "four"]


def test_what_is_pasted_keeps_its_lines(talk: Talk) -> None:
    talk.type("\x1b[200~one\ntwo\x1b[201~ three")
    assert talk.sent()[0][0]["content"] == "one\ntwo three"


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("world\x01hello \x05!", "hello world!"),
        ("one two\x17three", "one three"),
        ("nonsense\x15sense", "sense"),
        ("one two\x1bb\x0bthree", "one three"),
        ("one\x1b\rtwo", "one\ntwo"),
        ("one two\x1bb\x1bb\x1bf!", "one! two"),
    ],
)
def test_keys_edit_the_line(keys: str, text: str, talk: Talk) -> None:
    talk.type(keys)
    assert talk.sent()[0][0]["content"] == text


def test_control_c_clears_the_line_and_says_how_to_leave(talk: Talk) -> None:
    talk.type("nonsense\x03\x03sense")
    assert talk.sent()[0][0]["content"] == "sense"
    assert talk.out.count("Use Ctrl + d or /bye to exit.") == 1


def test_an_editor_writes_the_message(talk: Talk, tmp_path: Path) -> None:
    script = tmp_path / "editor.py"
    script.write_text("import pathlib, sys\np = pathlib.Path(sys.argv[1])\np.write_text(p.read_text() + ' two\\n')")
    talk.editor = f"{sys.executable} {script}"
    talk.pause = 1.5  # what is typed while the editor is open belongs to the editor
    talk.press("one\x07", ENTER + LEAVE)
    assert talk.sent()[0][0]["content"] == "one two"


def test_history_is_kept_for_its_owner_and_no_longer_than_it_may_be(talk: Talk) -> None:
    talk.type("first", "/set nohistory", "secret", "/set history", '"""a', 'b"""')
    assert [json.loads(line) for line in talk.history.read_text().splitlines()] == [
        "first", "/set nohistory", '"""a\nb"""',
    ]  # fmt: skip
    assert stat.S_IMODE(talk.history.stat().st_mode) == 0o600 or os.name == "nt"
    talk.press("", "\x1b[A" * 4 + ENTER + LEAVE)  # the block has two lines to go up
    assert talk.sent()[-1][-1]["content"] == "first"
    kept = RecentHistory(talk.history, limit=100)
    for number in range(150):
        kept.store_string(str(number))
    assert [*kept.load_history_strings()][:2] == ["149", "148"]
    assert len(talk.history.read_text().splitlines()) == 100


def test_tab_completes_commands_models_and_paths(talk: Talk, tmp_path: Path) -> None:
    picture(tmp_path / "photograph.png")
    talk.press("/cle\t", ENTER + "/load parr\t", ENTER + "see ./photog\t", ENTER + LEAVE)
    assert "Cleared session context" in talk.out
    assert "Loading model 'parrot:latest'" in talk.out
    assert "[1 pictures]" in talk.out


# --- commands ---


def test_settings_change_what_is_sent(talk: Talk) -> None:
    talk.type(
        "/set parameter temperature 0.5", '/set parameter stop END "and so on"', "/set parameter seed 7",
        '/set system """Be', 'brief."""', "/set format json", "/set think high", "/set verbose", "one",
        "/set noformat", "/set nothink", "/set quiet", "two",
    )  # fmt: skip
    first, second = talk.server.bodies("/api/chat")
    assert first["options"] == {"temperature": 0.5, "stop": ["END", "and so on"], "seed": 7}
    assert (first["format"], first["think"]) == ("json", "high")
    assert first["messages"][0] == {"role": "system", "content": "Be\nbrief."}
    assert (second.get("format"), second["think"]) == (None, False)
    assert talk.err.count("eval rate:") == 2  # of the prompt and of the answer, once
    for line in ("Set parameter 'temperature' to '0.5'", "Set system message.", "Set format to 'json' mode.",
                 "Set 'verbose' mode.", "Set 'quiet' mode.", "Set 'nothink' mode."):  # fmt: skip
        assert f"{line}\n" in talk.out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/set parameter temprature 1", "unknown parameter 'temprature'"),
        ("/set parameter seed much", "invalid int value [much]"),
        ("/set parameter seed 1 2", "takes one value"),
        ("/set parameter", "wants a name and a value"),
        ("/set format xml", "the format can be json"),
        ("/set think much", "the level can be"),
        ("/set system", "wants the message"),
        ("/load", "wants the name"),
        ("/load nobody", "no model 'nobody' is here"),
        ("/save", "wants a name"),
    ],
)
def test_what_a_command_cannot_do_is_told(line: str, message: str, talk: Talk) -> None:
    talk.type(line, "still here")
    assert message in talk.err
    assert [body["model"] for body in talk.server.bodies("/api/chat")] == ["parrot"]


def test_show_tells_of_the_model_and_of_what_was_set(talk: Talk) -> None:
    talk.type("/show info", "/show license", "/show template", "/set parameter top_k 5", "/show parameters",
              "/set system Sing.", "/show system", "/show nonsense")  # fmt: skip
    assert "  Capabilities\n    completion\n" in talk.out
    assert "January 2004" in talk.out
    assert "{{ .Prompt }}\n" in talk.out
    assert re.search(r"User defined parameters:\n  top_k +5\n", talk.out)
    assert "Model defined parameters:\n  stop " in talk.out
    assert "Sing.\n" in talk.out
    assert "Unknown command '/show nonsense'" in talk.out


def test_a_conversation_is_saved_loaded_and_cleared(talk: Talk) -> None:
    talk.type("/set system Sing.", "/set parameter top_k 5", "Hi", "/save bird", "/load bird", "Well?", "/clear",
              "Again?")  # fmt: skip
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi "}]
    assert talk.server.bodies("/api/create") == [
        {"model": "bird", "from": "parrot", "system": "Sing.", "parameters": {"top_k": 5}, "messages": turns}
    ]
    assert "Created new model 'bird'" in talk.out
    assert ">>> Hi\n" in talk.out
    after, cleared = talk.server.bodies("/api/chat")[-2:]
    assert (after["model"], after["messages"], "options" in after) == (
        "bird", [{"role": "user", "content": "Well?"}], False,
    )  # fmt: skip
    assert cleared["messages"] == [{"role": "user", "content": "Again?"}]


def test_what_lies_at_a_path_is_nothing_to_build_on(talk: Talk) -> None:
    talk.session.unstored = "parrot"
    talk.type("Hi", "/save bird")
    assert "this model is in no store" in talk.err
    assert talk.server.bodies("/api/create") == []


def test_help_and_list(talk: Talk) -> None:
    talk.type("/?", "/help set", "/? show", "/? shortcuts", "/list", "/nonsense", "/set nonsense")
    for text in ("/save <model>", "/set parameter ...", "/show modelfile", "Ctrl + g", "parrot:latest",
                 "Unknown command '/nonsense'", "Unknown command '/set nonsense'"):  # fmt: skip
        assert text in talk.out


@pytest.mark.parametrize("word", ["/bye", "/exit"])
def test_leaving_ends_it(word: str, talk: Talk) -> None:
    talk.type(word, "never sent")
    assert talk.sent() == []


# --- what a line means ---


@pytest.mark.parametrize(
    ("text", "opened"),
    [('"""a', True), ('"""', True), ('"""a"""', False), ('/set system """a\nb', True), ('say """', False), ("", False)],
)
def test_a_block_is_open_until_its_end(text: str, opened: bool) -> None:
    assert is_open(text) is opened


def test_a_block_is_what_stands_between_the_quotes() -> None:
    assert [unblocked(text) for text in ('"""a\nb"""', '"""\na\n"""', "a")] == ["a\nb", "a", "a"]


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0s"), (5, "5ns"), (1_500, "1.5µs"), (12_250_000, "12.25ms"), (1_500_000_000, "1.5s"),
     (62_000_000_000, "1m2s"), (3_600_000_000_000, "1h0m0s")],
)  # fmt: skip
def test_durations_are_written_as_go_writes_them(nanoseconds: int, text: str) -> None:
    assert duration_text(nanoseconds) == text


def test_thoughts_that_break_off_leave_the_terminal_as_it_was() -> None:
    class Grey(io.StringIO):
        def isatty(self) -> bool:
            return True

    def replies() -> Iterator[Reply]:
        yield Reply(thinking="hm")
        raise KeyboardInterrupt

    screen, told = Grey(), Told()
    with pytest.raises(KeyboardInterrupt):
        tell(replies(), told, screen)
    assert screen.getvalue() == "Thinking...\n\x1b[90mhm\n\x1b[0m...done thinking.\n\n"
    assert told.thinking == "hm"


class Screen(io.StringIO):
    """A terminal that understands what taking back a word needs: left, erase to the end, new line."""

    def lines(self) -> list[str]:
        rows: list[list[str]] = [[]]
        column = 0
        for back, erase, letter in re.findall(r"\x1b\[(\d+)D|(\x1b\[K)|([\s\S])", self.getvalue()):
            if back:
                column -= int(back)
            elif erase:
                del rows[-1][column:]
            elif letter == "\n":
                rows.append([])
                column = 0
            else:
                rows[-1].append(letter)
                column += 1
        return ["".join(row) for row in rows]


@pytest.mark.parametrize("step", [1, 3, 100])
def test_lines_are_broken_between_words(step: int) -> None:
    screen = Screen()
    wrapping = Wrapping(screen, width=11)
    text = "one two three four\nabcdefghijklmnop end"
    for start in range(0, len(text), step):
        wrapping.write(text[start : start + step])
    lines = screen.lines()
    assert max(map(len, lines)) <= 10
    assert [line.rstrip() for line in lines] == ["one two", "three four", "abcdefghij", "klmnop end"]


# --- a real terminal ---


@pytest.mark.skipif(os.name == "nt", reason="a pseudo-terminal")
def test_at_a_real_terminal_control_c_stops_the_answer_and_keeps_the_session(
    server: ParrotServer, tmp_path: Path
) -> None:
    with Terminal(["run", "parrot"], server.url, tmp_path) as terminal:
        terminal.wait_for(">>> ")
        terminal.type("endless\r")
        terminal.wait_for("\x1b.*[^ ]endless ")  # once more, after what the terminal showed of the typing
        terminal.type("\x03")
        terminal.wait_for(">>> ")
        terminal.type("after\r")
        terminal.wait_for("after ")
        terminal.wait_for(">>> ")
        terminal.type("/bye\r")
        assert terminal.code() == 0
    assert server.gone == 1
    assert [message["content"] for message in server.bodies("/api/chat")[-1]["messages"]] == [
        "endless", "endless ", "after",
    ]  # fmt: skip


class Terminal:
    """The command at a pseudo-terminal."""

    def __init__(self, arguments: list[str], url: str, home: Path) -> None:
        self.arguments = arguments
        self.environment = {
            **os.environ, "LAPILLI_HOST": url, "XDG_DATA_HOME": str(home), "TERM": "xterm", "LAPILLI_NOHISTORY": "1",
        }  # fmt: skip
        self.seen = ""

    def __enter__(self) -> Terminal:
        import pty

        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [sys.executable, "-m", "lapilli", *self.arguments], self.environment)
        return self

    def __exit__(self, *_: object) -> None:
        import contextlib

        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.file)

    def type(self, text: str) -> None:
        self.seen = ""
        os.write(self.file, text.encode())

    def wait_for(self, pattern: str, seconds: float = 30) -> None:
        self._until(lambda: re.search(pattern, self.seen), seconds)
        self.seen = re.split(pattern, self.seen, maxsplit=1)[-1]

    def code(self) -> int:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        raise AssertionError(f"it does not end: {self.seen!r}")

    def _until(self, true: Callable[[], object], seconds: float) -> None:
        import select

        deadline = time.monotonic() + seconds
        while not true():
            ready, _, _ = select.select([self.file], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"nothing more came: {self.seen!r}"
            data = os.read(self.file, 1 << 16)
            self.seen += data.decode("utf-8", "replace")
            if b"\x1b[6n" in data:
                os.write(self.file, b"\x1b[1;1R")  # where the cursor is, which prompt_toolkit asks
