"""A question of any dialect -> what a model says to it.

async for said in answer(question, residents): ...

Everything that a question can be refused for without its model in memory is looked at before the model is loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import math
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from lapilli.engine.ask import Ask, Finished, ModelFacts, News, TokenNews
from lapilli.engine.grammar import Constraint
from lapilli.errors import InputError
from lapilli.faces.bases import Resident
from lapilli.faces.residents import Residents
from lapilli.inputs.abilities import template_abilities
from lapilli.inputs.replies import ReplyPart, ReplyReader
from lapilli.inputs.templates import ChatTemplate, TemplateText
from lapilli.store.naming import ModelName
from lapilli.store.package import Package
from lapilli.wire.options import Options, read_options
from lapilli.wire.question import Account, Likelihood, Question, Said, ToolCall, Turn

_PLACE = "<image>"
_LARGE_SCHEMA = 16 << 10

Vectors = tuple[tuple[float, ...], ...]


async def answer(question: Question, residents: Residents) -> AsyncGenerator[Said, None]:
    """What is said, as it is said; the last piece has the account. Closing this aborts at the model's next step.

    A question without turns and prompt loads its model, or with `keep_alive` 0 gives it up. Raises InputError (also
    PromptError, ImageError, TemplateError) for what cannot be asked, and whatever `Residents.seat` raises.
    """
    began = time.perf_counter()
    package = await residents.find(question.model)
    _check_kind(question, package)
    if not (question.turns or question.prompt):
        yield await _load(question, package, residents, began)
        return
    question = _settled(question, package)
    options = read_options(question.defaults, package.parameters, question.sampling)
    constraint = await _constraint(question.form)
    reader = await asyncio.to_thread(_reader, question, package) if _is_mixed(question) else None
    async with residents.seat(package, question.keep_alive) as resident:
        ask = dataclasses.replace(
            _ask(question, package),
            sampling={**options.sampling, **({"logprobs": question.top_logprobs} if question.logprobs else {})},
            constraint=constraint,
            context=_context(options, question.sampling, resident),
            seconds=residents.settings.max_seconds,
            keep=() if reader is None else tuple(sorted(reader.form.markers)),
        )
        thought: Finished | None = None
        if constraint is not None and question.think and reader is not None and reader.form.thoughts:
            async with contextlib.aclosing(_thoughts(ask, reader, resident)) as thoughts:
                async for piece in thoughts:
                    if isinstance(piece, Said):
                        yield piece
                    else:
                        ask, thought = piece
            reader = None
        async with contextlib.aclosing(resident.process.ask(ask)) as told:
            async for news in told:
                for said in _said(news, reader):
                    yield said
                if news.finished is not None:
                    finished = news.finished if thought is None else _together(thought, news.finished)
                    yield Said(account=_account(finished, resident, question, began))
                    return


async def embed(
    model: str,
    texts: Sequence[str],
    residents: Residents,
    *,
    truncate: bool = False,
    dimensions: int | None = None,
    keep_alive: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[Vectors, Account]:
    """A vector of length 1 for each text, cut to `dimensions` and made of length 1 again; and what it took.

    No texts at all load the model, or with `keep_alive` 0 give it up. Raises InputError where a text is longer than
    the context, unless it may be cut; and whatever `Residents.seat` raises.
    """
    began = time.perf_counter()
    package = await residents.find(model)
    asked = read_options(package.parameters, options or {})
    if not texts:
        said = await _load(Question(model=model, keep_alive=keep_alive), package, residents, began)
        assert said.account is not None, "what loads has an account"
        return (), said.account
    async with residents.seat(package, keep_alive) as resident:
        embedded = await resident.process.embed(
            texts,
            truncate=truncate,
            context=_context(asked, options or {}, resident),
            adapter=package.adapters[0] if package.adapters else None,
        )
        account = Account(
            reason="stop",
            prompt_tokens=embedded.prompt_tokens,
            truncated=embedded.truncated,
            total_seconds=time.perf_counter() - began,
            load_seconds=resident.load_seconds,
            queue_seconds=resident.queue_seconds,
        )
    return tuple(_cut(vector, dimensions) for vector in embedded.vectors), account


# --- what can be refused at once ---


def _check_kind(question: Question, package: Package) -> None:
    """Whether the model can be asked such a thing at all."""
    able, name = package.capabilities, question.model
    kind = "generate" if question.prompt is not None else "chat"
    if "completion" not in able:
        raise InputError(f'"{name}" does not support {kind}')
    if len(package.adapters) > 1:
        raise InputError(f"{name} has {len(package.adapters)} adapters: one is the most that is asked with")
    if question.pictures and "vision" not in able:
        raise InputError(f'"{name}" does not support images')
    if question.tools and "tools" not in able:
        raise InputError(f"{_full(package.name)} does not support tools")
    if question.suffix and "insert" not in _abilities(question, package):
        raise InputError(f"{_full(package.name)} does not support insert")
    if question.think and not question.think_leniently and "thinking" not in _abilities(question, package):
        raise InputError(f'"{name}" does not support thinking')


def _settled(question: Question, package: Package) -> Question:
    """The question with nothing left open that the model decides: whether to think."""
    if "thinking" not in _abilities(question, package):
        return dataclasses.replace(question, think=None)
    if question.form is not None and question.prompt is not None:
        return dataclasses.replace(question, think=False)  # the form holds from the first token on
    return question if question.think is not None else dataclasses.replace(question, think=True)


def _abilities(question: Question, package: Package) -> Sequence[str]:
    """What the model's template is made for, or the one that the question brings along."""
    if not question.template:
        return package.capabilities
    own = TemplateText.of(question.template)
    can = template_abilities(own.language, own.text)
    return [name for name, able in (("insert", can.inserts), ("thinking", can.thinks)) if able]


def _full(name: str) -> str:
    """A model's name with everything that is left out of it."""
    try:
        return "/".join(ModelName.parse(name).path_parts[:3]) + ":" + ModelName.parse(name).tag
    except InputError:
        return name


async def _constraint(form: str | Mapping[str, Any] | None) -> tuple[str, str] | None:
    """The form of the answer as the engine takes it; raises InputError that names what cannot be kept."""
    if form is None:
        return None
    if form == "json":
        made = Constraint.json()
    elif isinstance(form, str):
        raise InputError(f'invalid format: {form[:80]!r}; expected "json" or a valid JSON Schema object')
    elif len(text := json.dumps(form)) > _LARGE_SCHEMA:
        made = await asyncio.to_thread(Constraint.json_schema, text)
    else:
        made = Constraint.json_schema(form)
    return made.kind, made.text


def _context(options: Options, given: Mapping[str, Any], resident: Resident) -> int | None:
    """The most that may be used; a request that wants more than there is is refused, a model's own wish is bounded."""
    if options.context is None:
        return None
    facts: ModelFacts = resident.process.facts
    most = min(facts.context_length, resident.process.order.context or facts.context_length)
    if given.get("num_ctx") is None:
        return min(options.context, most, facts.cache_tokens)
    if options.context > most:
        raise InputError(f'option "num_ctx" is {options.context}: this model reads at most {most}')
    if options.context > facts.cache_tokens:
        raise InputError(
            f'option "num_ctx" is {options.context}: the memory for keys and values holds {facts.cache_tokens}, '
            "LAPILLI_CACHE_MEMORY raises that"
        )
    return options.context


# --- what is asked ---


def _ask(question: Question, package: Package) -> Ask:
    """The question with what the model's package adds to it."""
    common: dict[str, Any] = {
        "pictures": question.pictures,
        "adapter": package.adapters[0] if package.adapters else None,
        "truncate": question.truncate,
        "heatmap": question.heatmap,
        "render_only": question.render_only,
    }
    if question.raw:
        text = question.prompt or ""
        if question.pictures and _PLACE not in text:
            text = f"{_PLACE}\n" * len(question.pictures) + text
        return Ask(prompt=text, **common)
    return Ask(
        messages=tuple(_messages(question, package)),
        suffix=question.suffix,
        before=question.context,
        template=_template(question, package),
        tools=question.tools,
        think=question.think,
        **common,
    )


def _messages(question: Question, package: Package) -> list[dict[str, Any]]:
    """The conversation: the model's own turns come first, its system's words where nobody said others."""
    if question.prompt is None:
        turns = [*map(dict, package.messages), *map(_message, question.turns)]
        says_own = question.turns[0].role == "system" or not package.system
        return turns if says_own else [{"role": "system", "content": package.system}, *turns]
    asked: dict[str, Any] = {"role": "user", "content": question.prompt}
    if question.pictures:
        asked["pictures"] = tuple(range(len(question.pictures)))
    if question.suffix:
        return [asked]
    system = question.system or package.system
    before = [{"role": "system", "content": system}] if system else []
    return [*before, *(map(dict, package.messages) if not question.context else ()), asked]


def _message(turn: Turn) -> dict[str, Any]:
    calls = tuple({"name": call.name, "arguments": dict(call.arguments), "id": call.id} for call in turn.tool_calls)
    values = {
        "pictures": turn.pictures,
        "thinking": turn.thinking,
        "tool_calls": calls,
        "tool_name": turn.tool_name,
        "tool_call_id": turn.tool_call_id,
    }
    return {
        "role": turn.role,
        "content": turn.content,
        **{name: value for name, value in values.items() if value},
    }


def _template(question: Question, package: Package) -> TemplateText | None:
    """The template that the question brings, or the package's; None where the checkpoint's own counts."""
    return TemplateText.of(question.template) if question.template else package.template


# --- what is said ---


def _is_mixed(question: Question) -> bool:
    """Whether thoughts or calls may come among the words of the answer."""
    return not question.raw and (bool(question.tools) or question.think is not None)


def _reader(question: Question, package: Package) -> ReplyReader:
    """What tells thoughts and calls from words."""
    text = _template(question, package) or package.chat_template
    return ReplyReader.for_template(
        ChatTemplate.from_text(text.language, text.text), tools=question.tools, think=question.think
    )


async def _thoughts(
    ask: Ask, reader: ReplyReader, resident: Resident
) -> AsyncGenerator[Said | tuple[Ask, Finished], None]:
    """Thoughts, which have no form; last, what to ask for the answer that has one, and what thinking took."""
    opening, closing = reader.form.inside or reader.form.thoughts[0]
    sampling = {**ask.sampling, "stop": (closing,)}
    text = "" if reader.form.inside else opening
    async with contextlib.aclosing(
        resident.process.ask(dataclasses.replace(ask, sampling=sampling, constraint=None, begun=text, heatmap=False))
    ) as told:
        async for news in told:
            text += news.text
            if news.text or news.tokens:
                yield Said(thinking=news.text, logprobs=tuple(map(_likelihood, news.tokens)))
            if news.finished is not None:
                left = _left(ask, news.finished)
                yield dataclasses.replace(ask, sampling=left, begun=f"{text}{closing}\n\n"), news.finished


def _left(ask: Ask, thought: Finished) -> Mapping[str, Any]:
    """The options of an answer whose thoughts have taken of its length already."""
    most = ask.sampling.get("max_tokens")
    return ask.sampling if most is None else {**ask.sampling, "max_tokens": max(0, most - thought.completion_tokens)}


def _together(thought: Finished, answer: Finished) -> Finished:
    """What an answer took that was asked for in two parts; the second read again what the first had said."""
    return dataclasses.replace(
        answer,
        prompt_tokens=thought.prompt_tokens,
        completion_tokens=thought.completion_tokens + answer.completion_tokens,
        cached_tokens=thought.cached_tokens,
        truncated=thought.truncated,
        queue_seconds=thought.queue_seconds + answer.queue_seconds,
        image_seconds=thought.image_seconds + answer.image_seconds,
        prefill_seconds=thought.prefill_seconds + answer.prefill_seconds,
        decode_seconds=thought.decode_seconds + answer.decode_seconds,
    )


def _said(news: News, reader: ReplyReader | None) -> list[Said]:
    """A piece of news as pieces of the answer; what is known of tokens goes with the first."""
    if reader is None:
        parts = [ReplyPart(text=news.text)] if news.text else []
    else:
        parts = list(reader.feed(news.text)) if news.text else []
        if news.finished is not None:
            parts += reader.end()
    said = [
        Said(text=part.text, thinking=part.thinking, tool_calls=tuple(map(_call, part.tool_calls))) for part in parts
    ]
    said = [part for part in said if part.text or part.thinking or part.tool_calls]
    known = tuple(map(_likelihood, news.tokens))
    if known:
        first = said[0] if said else Said()
        return [dataclasses.replace(first, logprobs=known), *said[1:]]
    return said


def _call(call: Any) -> ToolCall:
    return ToolCall(name=call.name, arguments=call.arguments, id=call.id)


def _likelihood(token: TokenNews) -> Likelihood:
    return Likelihood(
        token=token.data.decode("utf-8", "replace"),
        logprob=token.logprob,
        data=token.data,
        top=tuple(
            Likelihood(token=data.decode("utf-8", "replace"), logprob=logprob, data=data) for data, logprob in token.top
        ),
    )


def _account(finished: Finished, resident: Resident, question: Question, began: float) -> Account:
    return Account(
        reason=finished.reason,
        prompt_tokens=finished.prompt_tokens,
        completion_tokens=finished.completion_tokens,
        cached_tokens=finished.cached_tokens,
        image_tokens=finished.image_tokens,
        truncated=finished.truncated,
        total_seconds=time.perf_counter() - began,
        load_seconds=resident.load_seconds,
        queue_seconds=resident.queue_seconds + finished.queue_seconds,
        image_seconds=finished.image_seconds,
        prefill_seconds=finished.prefill_seconds,
        decode_seconds=finished.decode_seconds,
        context=finished.ids,
        stopped_by=finished.stopped_by,
        rendered=finished.rendered,
        pictures=len(question.pictures),
        heatmap=finished.heatmap,
    )


async def _load(question: Question, package: Package, residents: Residents, began: float) -> Said:
    """The model in memory, or out of it, and nothing said."""
    if question.keep_alive == 0:
        await residents.unload(package)
        return Said(account=Account(reason="unload", total_seconds=time.perf_counter() - began))
    async with residents.seat(package, question.keep_alive) as resident:
        load_seconds = resident.load_seconds
    return Said(account=Account(reason="load", total_seconds=time.perf_counter() - began, load_seconds=load_seconds))


def _cut(vector: tuple[float, ...], dimensions: int | None) -> tuple[float, ...]:
    if dimensions is None or dimensions >= len(vector):
        return vector
    kept = vector[:dimensions]
    length = math.hypot(*kept)
    return tuple(value / length for value in kept) if length else kept
