"""Questions of any dialect: what the model is asked, what is refused and in which words, what is told of it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeLibrary, FakeProcess, Starter, finished, package

from lapilli.engine.ask import Ask, News, TokenNews
from lapilli.errors import InputError, ModelNotFoundError
from lapilli.faces.answering import answer, embed
from lapilli.faces.residents import Residents
from lapilli.ground.settings import Settings
from lapilli.inputs.templates import TemplateText
from lapilli.store.package import Package
from lapilli.wire.options import read_options
from lapilli.wire.question import Question, Said, ToolCall, Turn

PLAIN = TemplateText(language="go", text="{{ if .System }}{{ .System }} {{ end }}{{ .Prompt }} ")
ABLE = TemplateText(
    language="go",
    text="{{ range .Tools }}<tool_call>{{ . }}{{ end }}{{ range .Messages }}{{ .Role }}: "
    "{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}\n{{ end }}{{ .Suffix }}",
)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
Told = tuple[list[Said], FakeProcess | None]
AskIt = Callable[..., Told]


@pytest.fixture
def ask_it(tmp_path: Path) -> AskIt:
    """Ask a question of fake models, and have what was said, and the process that said it."""

    def ask(question: Question, reply: Callable[[Ask], list[News]] | None = None, /, **facts: Any) -> Told:
        settings = Settings(models=tmp_path, max_memory=1 << 40)
        starter = Starter(**facts)

        async def start(order: Any) -> Any:
            process = await starter(order)
            process.reply = reply or process.reply
            return process

        residents = Residents(FakeLibrary(*packages(tmp_path)), settings, start=start)  # type: ignore[arg-type]

        async def work() -> list[Said]:
            try:
                return [said async for said in answer(question, residents)]
            finally:
                assert (residents.answering, residents.waiting) == (0, 0)
                await residents.close(1)

        said = asyncio.run(work())
        return said, starter.started[0] if starter.started else None

    return ask


def resident_at(folder: Path, starter: Starter, **settings: Any) -> Residents:
    return Residents(FakeLibrary(*packages(folder)), Settings(models=folder, **settings), start=starter)  # type: ignore[arg-type]


def packages(folder: Path) -> list[Package]:
    return [
        package(
            "plain:latest", folder / "plain", template=PLAIN, system="Be kind.",
            parameters={"temperature": 0.1, "stop": ["USER:"], "num_ctx": 9999},
            messages=({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}),
        ),
        package("bare:latest", folder / "bare", capabilities=("completion",)),
        package(
            "able:latest", folder / "able", template=ABLE, capabilities=("completion", "tools", "thinking", "insert")
        ),
        package("bert:latest", folder / "bert", capabilities=("embedding",)),
        package("tuned:latest", folder / "bare", adapters=(folder / "lora",)),
    ]  # fmt: skip


def asked(told: Told) -> Ask:
    process = told[1]
    assert process is not None
    return process.asked[-1]


def chat(*turns: Turn, model: str = "plain", **more: Any) -> Question:
    return Question(model=model, turns=turns or (Turn(role="user", content="What is it?"),), **more)


# --- what is asked ---


def test_a_chat_begins_with_the_models_own_words(ask_it: AskIt) -> None:
    ask = asked(ask_it(chat()))
    assert ask.messages == (
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "What is it?"},
    )
    assert ask.template is not None
    assert (ask.template.language, ask.template.text) == (PLAIN.language, PLAIN.text)
    own = asked(ask_it(chat(Turn(role="system", content="Be cross."), Turn(role="user", content="?"))))
    assert [message["content"] for message in own.messages] == ["Hi", "Hello", "Be cross.", "?"]


def test_generate_is_a_chat_of_one_turn(ask_it: AskIt) -> None:
    picture = b"\x89PNG"
    ask = asked(ask_it(Question(model="plain", prompt="What is it?", pictures=(picture,))))
    assert ask.messages[0] == {"role": "system", "content": "Be kind."}
    assert ask.messages[-1] == {"role": "user", "content": "What is it?", "pictures": (0,)}
    assert ask.pictures == (picture,)
    assert len(ask.messages) == 4
    other = asked(ask_it(Question(model="plain", prompt="?", system="Be cross.", context=(1, 2))))
    assert [message["content"] for message in other.messages] == ["Be cross.", "?"], "the context has said the rest"
    assert other.before == (1, 2)


def test_raw_text_goes_as_it_is(ask_it: AskIt) -> None:
    ask = asked(ask_it(Question(model="plain", prompt="USER: <s> ASSISTANT:", raw=True)))
    assert (ask.prompt, ask.messages, ask.template) == ("USER: <s> ASSISTANT:", (), None)
    seen = asked(ask_it(Question(model="plain", prompt="What?", raw=True, pictures=(b"1", b"2"))))
    assert seen.prompt == "<image>\n<image>\nWhat?"
    own = asked(ask_it(Question(model="plain", prompt="A <image> B", raw=True, pictures=(b"1",))))
    assert own.prompt == "A <image> B"


def test_a_template_of_the_question(ask_it: AskIt) -> None:
    ask = asked(ask_it(Question(model="plain", prompt="?", template="{{ .Prompt }}!")))
    assert ask.template is not None
    assert ask.template.text == "{{ .Prompt }}!"
    assert asked(ask_it(Question(model="bare", prompt="?"))).template is None
    inserted = asked(ask_it(Question(model="plain", prompt="a", suffix="b", template="{{ .Prompt }}_{{ .Suffix }}")))
    assert (inserted.suffix, [m["content"] for m in inserted.messages]) == ("b", ["a"])


def test_turns_keep_their_calls_and_thoughts(ask_it: AskIt) -> None:
    call = ToolCall(name="look", arguments={"b": 1, "a": 2}, id="c1")
    turns = (
        Turn(role="user", content="?", pictures=(0,)),
        Turn(role="assistant", thinking="hm", tool_calls=(call,)),
        Turn(role="tool", content="42", tool_name="look", tool_call_id="c1"),
    )
    ask = asked(ask_it(chat(*turns, model="able", tools=(TOOL,))))
    assert ask.tools == (TOOL,)
    assert ask.think is True, "a model that thinks does, unless told not to"
    assert ask.messages[1] == {
        "role": "assistant", "content": "", "thinking": "hm",
        "tool_calls": ({"name": "look", "arguments": {"b": 1, "a": 2}, "id": "c1"},),
    }  # fmt: skip
    assert ask.messages[2] == {"role": "tool", "content": "42", "tool_name": "look", "tool_call_id": "c1"}


def test_an_adapter_is_chosen_by_the_name(ask_it: AskIt, tmp_path: Path) -> None:
    assert asked(ask_it(chat(model="tuned"))).adapter == tmp_path / "lora"
    assert asked(ask_it(chat(model="bare"))).adapter is None


# --- options ---


def test_the_request_wins_over_the_model_over_ollamas_defaults(ask_it: AskIt) -> None:
    ask = asked(ask_it(chat(sampling={"top_k": 3, "temperature": None}, defaults={"temperature": 1.0, "top_p": 1.0})))
    assert ask.sampling["temperature"] == 0.1
    assert (ask.sampling["top_k"], ask.sampling["top_p"], ask.sampling["min_p"]) == (3, 1.0, 0.0)
    assert (ask.sampling["repeat_penalty"], ask.sampling["stop"], ask.sampling["seed"]) == (1.0, ("USER:",), None)
    assert "max_tokens" not in ask.sampling, "the checkpoint's own limit"
    assert ask.seconds == 600
    bare = asked(ask_it(chat(model="bare", sampling={"num_predict": -1, "seed": 7, "stop": "x"}))).sampling
    assert (bare["temperature"], bare["top_k"], bare["top_p"]) == (0.8, 40, 0.9)
    assert (bare["max_tokens"], bare["seed"], bare["stop"]) == (None, 7, ("x",))


def test_a_context_beyond_the_models_is_refused_unless_the_model_itself_wished_it(ask_it: AskIt) -> None:
    assert asked(ask_it(chat(), context_length=100)).context == 100
    assert asked(ask_it(chat(model="bare"), context_length=100)).context is None
    assert asked(ask_it(chat(sampling={"num_ctx": 64}), context_length=100)).context == 64
    with pytest.raises(InputError, match=r'"num_ctx" is 1000000000: this model reads at most 100'):
        ask_it(chat(sampling={"num_ctx": 10**9}), context_length=100)
    with pytest.raises(InputError, match=r'"num_ctx" is 90: the memory for keys and values holds 50'):
        ask_it(chat(sampling={"num_ctx": 90}), context_length=100, cache_tokens=50)


KINDS = {
    "integer": "top_k seed num_predict num_ctx num_keep num_batch num_gpu num_thread repeat_last_n",
    "float32": "temperature top_p min_p typical_p repeat_penalty presence_penalty frequency_penalty",
}
ODD = [-1, -(2**31), 2**31, 2**63, 2**64, 1e308, math.nan, math.inf, "5", True, None, [], 0, {}, 0.5]


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_every_number_is_taken_or_named(value: Any) -> None:
    """T63, T64: a refusal names the option, and costs nothing."""
    began, refused = time.perf_counter(), [True]
    for kind, names in KINDS.items():
        for name in names.split():
            if isinstance(value, bool | str | list | dict):
                with pytest.raises(InputError, match=f'^option "{name}" must be of type {kind}$'):
                    read_options({name: value})
                continue
            try:
                taken = read_options({name: value}).sampling.values()
            except InputError as error:
                refused.append(str(error).startswith(f'option "{name}" '))
            else:
                assert all(not isinstance(number, float) or math.isfinite(number) for number in taken)
    assert all(refused)
    assert time.perf_counter() - began < 0.05


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("num_ctx", 0, r'option "num_ctx" is 0: it must be from 1 to 2147483647'),
        ("num_predict", 2**31, "from -2 to"),
        ("num_keep", 2**31, "from -1 to"),
        ("num_batch", 2**31, "from 1 to"),
        ("num_thread", 2**31, "from 0 to"),
        ("top_k", -1, "from 0 to"),
        ("top_k", 1.5, "must be of type integer"),
        ("temperature", -0.1, "from 0 to 100"),
        ("repeat_penalty", 0, "above 0 and at most 100"),
        ("stop", ["x"] * 1_000_000, "1000000 texts: at most 64"),
        ("stop", ["x" * 1001], "more than 1000 characters"),
        ("stop", [1], "must be of an array of strings"),
        ("stop", 5, "must be of type array"),
        ("use_mmap", 1, "must be of type boolean"),
    ],
)
def test_what_is_out_of_range_is_said(name: str, value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_options({name: value})


def test_values_with_a_meaning_of_their_own() -> None:
    def read(**values: Any) -> Any:
        return read_options(values).sampling

    assert read(seed=-1)["seed"] is None
    assert read(seed=-2)["seed"] == -2
    assert read(num_predict=-2)["max_tokens"] is None
    assert read(num_predict=0)["max_tokens"] == 0
    assert 0 < read(top_p=0)["top_p"] < 1e-6
    assert read(top_k=40.0)["top_k"] == 40
    assert read(stop=["a", "", "a"])["stop"] == ("a",)
    assert read_options({"num_ctx": 8}).context == 8


def test_options_of_another_time_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    old = {"mirostat": 2, "tfs_z": "x", "numa": True, "use_mlock": 3, "penalize_newline": [], "f16_kv": 1}
    assert read_options(old) == read_options()
    assert not caplog.records
    read_options({"temprature": 1, "\nforged": 2, **{f"x{n}": 1 for n in range(10_000)}})
    assert len(caplog.records) == 1
    assert "temprature" in caplog.text or "x0" in caplog.text
    assert "\n" not in caplog.records[0].getMessage()
    assert len(caplog.records[0].getMessage()) < 1000


# --- what is refused ---


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (chat(model="bert"), '"bert" does not support chat'),
        (Question(model="bert", prompt="?"), '"bert" does not support generate'),
        (chat(tools=(TOOL,)), "registry.ollama.ai/library/plain:latest does not support tools"),
        (chat(think=True), '"plain" does not support thinking'),
        (chat(think="high"), '"plain" does not support thinking'),
        (Question(model="plain", prompt="a", suffix="b"), "ollama.ai/library/plain:latest does not support insert"),
        (chat(model="bare", pictures=(b"x",)), '"bare" does not support images'),
        (chat(form="yaml"), "invalid format: 'yaml'; expected \"json\" or a valid JSON Schema object"),
        (chat(form={"type": "object", "nonsense": 1}), "'nonsense' cannot be enforced"),
        (chat(sampling={"top_k": "5"}), 'option "top_k" must be of type integer'),
    ],
    ids=lambda value: "" if isinstance(value, Question) else value[:30],
)  # fmt: skip
def test_what_cannot_be_asked_is_said_before_anything_is_loaded(tmp_path: Path, question: Question, words: str) -> None:
    async def work() -> None:
        starter = Starter()
        residents = resident_at(tmp_path, starter)
        with pytest.raises(InputError) as caught:
            _ = [said async for said in answer(question, residents)]
        assert words in str(caught.value)
        assert not starter.started

    asyncio.run(work())


def test_a_model_that_is_not_here(ask_it: AskIt) -> None:
    with pytest.raises(ModelNotFoundError):
        ask_it(chat(model="nobody"))


def test_thinking_that_is_only_hoped_for(ask_it: AskIt) -> None:
    assert asked(ask_it(chat(think=True, think_leniently=True))).think is None
    assert asked(ask_it(chat(think=False))).think is None
    assert asked(ask_it(chat(model="able", think=False))).think is False
    assert asked(ask_it(chat(model="able", think="low"))).think == "low"


# --- what is said ---


def test_nothing_to_say_loads_or_unloads(ask_it: AskIt) -> None:
    for question in (Question(model="plain", prompt=""), Question(model="plain")):
        said, process = ask_it(question)
        assert [part.account.reason for part in said if part.account] == ["load"]
        assert process is not None
        assert not process.asked
        said, process = ask_it(dataclasses.replace(question, keep_alive=0.0))
        assert [part.account.reason for part in said if part.account] == ["unload"]
        assert process is None, "nothing is loaded to be given up"


def test_the_account_is_the_models_own(ask_it: AskIt) -> None:
    end = finished(
        reason="length", prompt_tokens=9, completion_tokens=4, cached_tokens=3, image_tokens=2, truncated=1,
        queue_seconds=0.5, image_seconds=0.25, prefill_seconds=1.0, decode_seconds=2.0, ids=(7, 8), stopped_by="x",
    )  # fmt: skip
    said, _ = ask_it(chat(), lambda ask: [News(text="A"), News(text="B"), News(finished=end)])
    assert "".join(part.text for part in said) == "AB"
    account = said[-1].account
    assert account is not None
    assert (account.reason, account.prompt_tokens, account.completion_tokens, account.cached_tokens) == (
        "length",
        9,
        4,
        3,
    )
    assert (account.image_tokens, account.truncated, account.context, account.stopped_by) == (2, 1, (7, 8), "x")
    assert (account.image_seconds, account.prefill_seconds, account.decode_seconds) == (0.25, 1.0, 2.0)
    assert account.queue_seconds >= 0.5
    assert 0 < account.load_seconds <= account.total_seconds < 5


def test_likelihoods_go_with_the_words(ask_it: AskIt) -> None:
    token = TokenNews(data=b"\xc3", logprob=-0.5, top=((b"\xc3", -0.5), (b"x", -2.0)))
    reply = [
        News(tokens=(token,)),
        News(text="é", tokens=(TokenNews(data=b"\xa9", logprob=-0.1),)),
        News(finished=finished()),
    ]
    said, process = ask_it(chat(logprobs=True, top_logprobs=2), lambda ask: reply)
    assert process is not None
    assert process.asked[0].sampling["logprobs"] == 2
    assert [(part.text, len(part.logprobs)) for part in said[:-1]] == [("", 1), ("é", 1)]
    first = said[0].logprobs[0]
    assert (first.data, first.logprob, [other.token for other in first.top]) == (b"\xc3", -0.5, ["�", "x"])
    assert "logprobs" not in asked(ask_it(chat(top_logprobs=3))).sampling


def test_thoughts_and_calls_are_told_apart(ask_it: AskIt) -> None:
    pieces = [
        "<thi",
        "nk>Let me",
        " look.</think>",
        "I look. <tool_call>",
        '{"name": "look", "arguments": {"z": 1}}',
        "</tool_call>",
    ]
    reply = [*(News(text=piece) for piece in pieces), News(finished=finished())]
    said, process = ask_it(chat(model="able", tools=(TOOL,), think=True), lambda ask: reply)
    assert process is not None
    assert {"<think>", "</think>", "<tool_call>"} <= set(process.asked[0].keep), "where these are special tokens"
    assert "".join(part.thinking for part in said) == "Let me look."
    assert "".join(part.text for part in said).strip() == "I look."
    calls = [call for part in said for call in part.tool_calls]
    assert [(call.name, dict(call.arguments)) for call in calls] == [("look", {"z": 1})]
    plain, _ = ask_it(chat(), lambda ask: reply)
    assert "<think>" in "".join(part.text for part in plain), "a model without tools and thoughts only has words"


def test_a_form_and_thoughts(ask_it: AskIt) -> None:
    """Thoughts come first and have no form; then the answer goes on from them and has it."""

    def reply(ask: Ask) -> list[News]:
        if ask.constraint is None:
            return [
                News(text="Hm, "),
                News(text="yes."),
                News(finished=finished(completion_tokens=30, stopped_by="</think>")),
            ]
        return [News(text='{"a":1}'), News(finished=finished(prompt_tokens=99, completion_tokens=7))]

    question = chat(model="able", form="json", think=True, sampling={"num_predict": 100})
    said, process = ask_it(question, reply)
    assert process is not None
    first, second = process.asked
    assert (first.begun, first.sampling["stop"]) == ("<think>", ("</think>",))
    assert (second.begun, second.sampling["stop"]) == ("<think>Hm, yes.</think>\n\n", ())
    assert second.sampling["max_tokens"] == 70
    assert second.constraint is not None
    assert second.constraint[0] == "json"
    assert "".join(part.thinking for part in said) == "Hm, yes."
    assert json.loads("".join(part.text for part in said)) == {"a": 1}
    account = said[-1].account
    assert account is not None
    assert (account.prompt_tokens, account.completion_tokens) == (5, 37)
    generated = asked(ask_it(Question(model="able", prompt="?", form="json"), reply))
    assert (generated.think, generated.constraint is None) == (False, False), "generate keeps the form from the start"


def test_who_leaves_early_is_forgotten(tmp_path: Path) -> None:
    async def work() -> None:
        starter = Starter()
        residents = resident_at(tmp_path, starter, num_parallel=1)
        for _ in range(3):
            words = answer(chat(), residents)
            assert (await anext(words)).text == "Hello."
            assert residents.answering == 1
            await words.aclose()
            assert residents.answering == 0
        await residents.close(1)

    asyncio.run(work())


# --- vectors ---


def test_vectors_are_cut_and_made_of_length_1_again(tmp_path: Path) -> None:
    async def work() -> None:
        starter = Starter()
        residents = resident_at(tmp_path, starter)
        vectors, account = await embed("tuned", ["a", "b"], residents, dimensions=1, options={"num_ctx": 8})
        assert vectors == ((1.0,), (1.0,))
        assert (account.reason, account.prompt_tokens) == ("stop", 2)
        assert starter.started[0].embedding == {"truncate": False, "context": 8, "adapter": tmp_path / "lora"}
        whole, _ = await embed("bert", ["a"], residents, truncate=True, dimensions=99)
        assert whole == ((3.0, 4.0, 0.0),)
        none, account = await embed("bert", [], residents)
        assert (none, account.reason) == ((), "load")
        none, account = await embed("bert", [], residents, keep_alive=0)
        assert account.reason == "unload"
        assert [one.package.name for one in residents.running()] == ["tuned:latest"]
        with pytest.raises(InputError, match='option "top_k" must be of type integer'):
            await embed("bert", ["a"], residents, options={"top_k": []})
        await residents.close(1)

    asyncio.run(work())
