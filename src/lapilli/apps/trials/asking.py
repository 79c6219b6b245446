"""Asking a model about trials: many under way at once, heard in their order, in smaller pieces where one does not fit.

What is a trial's own fault is told in what was heard of it. What is the machine's fault (the model's process ended, the
server is away) is tried again, and ends the asking when it strikes many trials in a row: they are not to blame.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from lapilli.apps.backend.call import WINDOW, Backend, Call, Reply
from lapilli.apps.backend.patience import Patience, is_machines
from lapilli.apps.trials.answers import Answered, Said, read_answer
from lapilli.apps.trials.prompt import SHORTEST, Question, instruction_for, questions
from lapilli.apps.trials.schema import model_schema
from lapilli.errors import InputError, LapilliError, PromptError

T = TypeVar("T")

_UNKNOWN_CONTEXT = 4096
_BYTES_A_TOKEN = 2.5  # few, so that what is not counted fits; what does not is cut when it is refused
_SPARE = 16
_LONGEST_PIECE = 12_000
_HALVINGS = 4
_IDLE_MOST = 1000
_MOST_NAMES = 32


@dataclass(frozen=True)
class Topic(Generic[T]):
    """One trial to ask about: its fields, and interventions that are known. Nothing is asked without fields.

    Known ones make the form of the answer: no other can be named.
    """

    about: T
    fields: Mapping[str, str]
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Heard(Generic[T]):
    """What was said about one trial; `code` and `message` tell what went wrong, both "" where nothing did."""

    about: T
    said: tuple[Said, ...]
    asked: int
    code: str = ""
    message: str = ""
    prompt_tokens: int = 0
    tokens: int = 0


@dataclass
class _Case(Generic[T]):
    topic: Topic[T]
    asked: list[Question]
    said: list[Said] = field(default_factory=list)
    heard: int = 0
    code: str = ""
    message: str = ""
    prompt_tokens: int = 0
    tokens: int = 0

    @property
    def over(self) -> bool:
        return self.heard == len(self.asked)

    def fail(self, code: str, message: str) -> None:
        if not self.code:
            self.code, self.message = code, " ".join(message.split())[:300]

    def told(self) -> Heard[T]:
        return Heard(
            self.topic.about, tuple(self.said), len(self.asked), self.code, self.message,
            self.prompt_tokens, self.tokens,
        )  # fmt: skip


class Asking:
    """Asks one backend about trials; `max_tokens` is the longest answer."""

    def __init__(self, backend: Backend, *, max_tokens: int | None = None, window: int = WINDOW) -> None:
        context = backend.context or _UNKNOWN_CONTEXT
        self.max_tokens = max_tokens or min(512, max(256, context // 8), max(16, context // 4))
        self._backend, self._window = backend, window
        self._instruction = instruction_for(backend.context)
        self._budget = max(context - self.max_tokens - _SPARE, 16)
        self._patience = Patience()

    def hear(self, topics: Iterable[Topic[T]]) -> Iterator[Heard[T]]:
        """What is said about each topic, in order. Raises what the machine failed with, many trials in a row."""
        source = iter(topics)
        waiting: deque[_Case[T]] = deque()

        def calls(first: Topic[T]) -> Iterator[Call]:
            for topic in itertools.chain((first,), source):
                case = self._open(topic)
                waiting.append(case)
                if not case.asked and len(waiting) > _IDLE_MOST:
                    return  # those with nothing to ask must not pile up
                yield from map(self._call, case.asked)

        for topic in source:
            for reply in self._backend.ask_all(calls(topic), window=self._window):
                yield from _told(waiting)
                case = waiting[0]
                self._take(case, case.asked[case.heard], reply)
                case.heard += 1
            yield from _told(waiting)
        assert not waiting, "a backend gave fewer replies than it got calls"

    def _open(self, topic: Topic[T]) -> _Case[T]:
        """The questions about one trial, none longer than fits."""
        case: _Case[T] = _Case(topic, [])
        most = min(_LONGEST_PIECE, int(self._budget * _BYTES_A_TOKEN))
        try:
            for _ in range(8):
                case.asked = questions(topic.fields, most=most, names=topic.names[:_MOST_NAMES])
                longest = max(map(self._size, case.asked), default=0)
                if longest <= self._budget or most <= SHORTEST:
                    break
                most = max(SHORTEST, min(most - 1, int(0.95 * most * self._budget / longest)))
        except (LapilliError, UnicodeError) as error:
            case.asked = []
            case.fail("unreadable_text", str(error))
        return case

    def _size(self, question: Question) -> int:
        """How many tokens a prompt has, or what is thought of it where nobody counts."""
        size = len(question.text.encode()) + len(self._instruction)
        if size < self._budget - 64:
            return size  # no token is shorter than a byte
        counted = self._backend.count(self._call(question))
        return int(size / _BYTES_A_TOKEN) if counted is None else counted

    def _call(self, question: Question) -> Call:
        schema = model_schema(names=question.names)
        return Call.of(question.text, system=self._instruction, max_tokens=self.max_tokens, schema=schema, chances=True)

    def _take(self, case: _Case[T], question: Question, reply: Reply | LapilliError, depth: int = 0) -> None:
        """Put one answer into its case; what did not fit, or was cut, is asked again in two."""
        if is_machines(reply):
            reply = self._again(question, reply)
        self._patience.weigh(reply)
        if isinstance(reply, LapilliError):
            mine = isinstance(reply, InputError)
            if not (mine and depth < _HALVINGS and self._halve(case, question, depth)):
                case.fail(_code(reply), str(reply))
            return
        case.prompt_tokens += reply.prompt_tokens
        case.tokens += reply.tokens
        answer = read_answer(reply)
        if (
            not answer.whole
            and depth == 0
            and _is_worth_halving(answer, question)
            and self._halve(case, question, depth)
        ):
            return
        case.said += answer.said
        if not answer.whole:
            code = "cut_answer" if answer.readable else "unreadable_answer"
            case.fail(code, f"the answer is no whole list of interventions: {reply.text[:80]!r}")

    def _again(self, question: Question, error: LapilliError) -> Reply | LapilliError:
        """The same once more; the first error where the machine fails again."""
        try:
            return self._backend.ask(self._call(question))
        except InputError as other:
            return other
        except LapilliError:
            return error

    def _halve(self, case: _Case[T], question: Question, depth: int) -> bool:
        """Ask in two pieces, and say whether that could be done."""
        halves = question.halves()
        for half in halves:
            try:
                reply: Reply | LapilliError = self._backend.ask(self._call(half))
            except LapilliError as error:
                reply = error
            self._take(case, half, reply, depth + 1)
        return bool(halves)


def _told(waiting: deque[_Case[T]]) -> Iterator[Heard[T]]:
    """The first cases, as far as they are over."""
    while waiting and waiting[0].over:
        yield waiting.popleft().told()


def _is_worth_halving(answer: Answered, question: Question) -> bool:
    """Whether less text may help: a model that rambles would ramble about less as well."""
    text = question.text.casefold()
    return not answer.readable or any(said.values["name"].casefold() in text for said in answer.said)


def _code(error: LapilliError) -> str:
    if isinstance(error, PromptError):
        return "too_long"
    return "refused" if isinstance(error, InputError) else "machine"
