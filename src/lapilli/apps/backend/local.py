"""A backend in this process: calls go through one engine, many at once."""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lapilli.apps.backend.call import WINDOW, Call, Reply, checked_window
from lapilli.apps.backend.spelling import spell
from lapilli.engine.answer import Answer
from lapilli.engine.engine import Engine, Job
from lapilli.engine.grammar import Constraint
from lapilli.engine.intake import Intake
from lapilli.engine.local import LocalModel
from lapilli.engine.sampler import SamplingOptions
from lapilli.engine.scores import embed
from lapilli.errors import LapilliError
from lapilli.inputs.chat import conversation

_BUILDERS = 2  # threads that build prompts: as many as template children are kept ready
_AHEAD = 4  # windows of answers that may wait for one before them


class LocalBackend:
    """Answers with a model in this process; `digest` names its weights. Safe from several threads."""

    def __init__(self, model: LocalModel, name: str, digest: str) -> None:
        self.model, self.name, self.digest = model, name, digest
        self.context: int | None = model.config.text.max_positions
        self.sees = model.prompts.sees
        self._intake = Intake(model.checkpoint, None, None)

    def ask(self, call: Call) -> Reply:
        """The answer to one call. Raises PromptError where it does not fit, InputError for a schema we cannot keep."""
        try:
            job = self._prepare(call)
            self.model.engine.enter(job)
            for chunk in self.model.engine.stream(job):
                if chunk.answer is not None:
                    return self._reply(chunk.answer)
        except LapilliError:
            raise
        except Exception as error:
            raise _told(error) from error
        raise AssertionError("a stream always ends with its answer")

    def ask_all(self, calls: Iterable[Call], *, window: int = WINDOW) -> Iterator[Reply | LapilliError]:
        """Answers in the order of the calls, with the same bits whatever the window; see `Backend.ask_all`.

        Prompts are built on other threads while the engine works. Raises InputError for a window below 1.
        """
        return self._answers(iter(calls), checked_window(window))

    def _answers(self, calls: Iterator[Call], window: int) -> Iterator[Reply | LapilliError]:
        line = _Line(self.model.engine)
        more = True
        with ThreadPoolExecutor(_BUILDERS, "prompt") as builders:
            try:
                while True:
                    while more and line.has_room(window):
                        call = next(calls, None)
                        if call is None:
                            more = False
                        else:
                            line.places.append(_Place(builders.submit(self._prepare, call)))
                    if not line.places:
                        return
                    while line.places and line.places[0].over:
                        place = line.places.popleft()
                        yield place.error or self._reply(place.whole_answer)
                    if not more or not line.has_room(window):
                        line.advance()
            finally:
                line.leave()

    def stream(self, call: Call) -> Iterator[str]:
        """An answer in pieces; leaving early ends it. Raises what `ask` does."""
        try:
            for chunk in self.model.stream(list(call.messages), options=_options(call), constraint=_constraint(call)):
                if chunk.text:
                    yield chunk.text
        except LapilliError:
            raise
        except Exception as error:
            raise _told(error) from error

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The model's own vectors (N, D), one text after another; of a text past the context its beginning counts."""
        vectors_ND = np.zeros((len(texts), self.model.config.text.hidden_size), np.float32)
        for vector_D, text in zip(vectors_ND, texts, strict=True):
            prompt, _ = self._intake.plain(text, True, None)
            vector_D[:] = embed(self.model.model, prompt).numpy()
        return vectors_ND

    def count(self, call: Call) -> int | None:
        """How many tokens the prompt has, its pictures among them. Raises PromptError."""
        return len(self.model.prompts.chat(conversation(call.messages)).token_ids)

    def close(self) -> None:
        """Nothing to do: the memory is given back with the model."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, call: Call) -> Job:
        """All that takes time before the engine's turn; runs beside its steps."""
        prompt = self.model.prompts.chat(conversation(call.messages))
        return self.model.engine.prepare(prompt, _options(call), _constraint(call))

    def _reply(self, answer: Answer) -> Reply:
        # The blank between the cue and the first word belongs to the format, not to the answer.
        text, chances = answer.text.lstrip(), None
        if answer.logprobs is not None:
            spelt = spell(map(self.model.tokenizer.token_bytes, answer.token_ids), text)
            # The token that ended the answer has a score too, and no text.
            chances = tuple((piece, score.logprob) for piece, score in zip(spelt, answer.logprobs, strict=False))
        return Reply(
            text=text,
            finish=answer.finish_reason,
            prompt_tokens=answer.prompt_tokens,
            tokens=answer.completion_tokens,
            chances=chances,
        )


class _Place:
    """A call on its way: its prompt being built, then a job of the engine, at last an answer or an error."""

    def __init__(self, building: Future[Job]) -> None:
        self.building = building
        self.job: Job | None = None
        self.answer: Answer | None = None
        self.error: LapilliError | None = None

    @property
    def over(self) -> bool:
        return self.answer is not None or self.error is not None

    @property
    def whole_answer(self) -> Answer:
        assert self.answer is not None, "what is over without an error has an answer"
        return self.answer

    @property
    def is_built(self) -> bool:
        return self.job is None and not self.over and self.building.done()

    def enter(self, engine: Engine) -> None:
        try:
            job = self.building.result()
            engine.enter(job)
            self.job = job
        except Exception as error:
            self.error = _told(error)

    def hear(self) -> None:
        """Take in what the engine has told of the job meanwhile."""
        if self.job is None or self.over:
            return
        while self.job.news:
            self.answer = self.job.news.popleft().answer
        if self.job.error is not None:
            self.error = _told(self.job.error)


class _Line:
    """The calls under way, in their order; `advance` does what is next for them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.places: deque[_Place] = deque()

    def has_room(self, window: int) -> bool:
        """Whether another call may begin; answers that wait for one before them take little."""
        return len(self.places) < window * _AHEAD and sum(not place.over for place in self.places) < window

    def advance(self) -> None:
        """Let built prompts in, and take a step; wait for a prompt where there is nothing else to do."""
        for place in self.places:
            if place.is_built:
                place.enter(self.engine)
        if any(place.job is not None and not place.over for place in self.places):
            self.engine.step()
        else:
            building = [place.building for place in self.places if not place.over]
            concurrent.futures.wait(building, return_when=concurrent.futures.FIRST_COMPLETED)
        for place in self.places:
            place.hear()

    def leave(self) -> None:
        """End what is still under way."""
        for place in self.places:
            place.building.cancel()
            if place.job is not None:
                self.engine.abort(place.job)


def _options(call: Call) -> SamplingOptions:
    return SamplingOptions(
        temperature=call.temperature,
        top_p=call.top_p,
        seed=call.seed,
        max_tokens=call.max_tokens,
        stop=call.stop,
        logprobs=0 if call.chances else None,
    )


def _constraint(call: Call) -> Constraint | None:
    return None if call.schema is None else Constraint.json_schema(call.schema)


def _told(error: Exception) -> LapilliError:
    """Any failure as one of ours: one that is none has its kind and its first line."""
    if isinstance(error, LapilliError):
        return error
    words = str(error).strip().partition("\n")[0][:200]
    return LapilliError(f"the engine failed: {type(error).__name__}: {words or 'no more is known'}")
