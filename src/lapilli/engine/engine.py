"""The engine: requests in, pieces of answers out, many at once.

    engine = Engine(checkpoint, EngineOptions())
    job = engine.submit(prompt, SamplingOptions(max_tokens=64))
    for chunk in engine.stream(job): print(chunk.text, end="")

A step is: plan what to compute, compute it, choose tokens, settle. Any number of threads may stream their own jobs;
whoever waits for something takes the next step for all.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lapilli.checkpoints.load import Checkpoint
from lapilli.engine.adapters import Adapters, Loaded
from lapilli.engine.answer import Answer, Chunk, TokenScore
from lapilli.engine.blocks import ROOT, BlockPool
from lapilli.engine.grammar import Constraint, GrammarCompiler, Matcher
from lapilli.engine.request import Picture, Request, units_of
from lapilli.engine.runner import Runner
from lapilli.engine.sampler import Sampler, SamplingOptions
from lapilli.engine.scheduler import Plan, Scheduler, SchedulerOptions, Work
from lapilli.engine.sight import Sight
from lapilli.engine.speculate import PromptLookup
from lapilli.engine.writing import Writing
from lapilli.errors import PromptError
from lapilli.inputs.prompt import Prompt
from lapilli.inputs.tokenizer import TextStream
from lapilli.model.lora import Adapter
from lapilli.model.quantized import sums_rows_alone
from lapilli.store.features import FeatureCache


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How much goes on at once, and how much memory it may take.

    `running` answers are written at once, prompts are read `chunk` tokens at a time, both cut into blocks of `block`.
    A step computes up to `rows` tokens of answers, at least one for each that runs. `cache_bytes` is for keys and
    values, `feature_bytes` for the features of pictures, which are kept in `feature_folder` too, if one is named.
    `speculate` guesses what an answer repeats of its prompt.
    """

    running: int = 8
    rows: int = 8
    chunk: int = 128
    block: int = 32
    cache_bytes: int = 2 << 30
    feature_bytes: int = 256 << 20
    feature_folder: Path | None = None
    speculate: bool = True


@dataclass(eq=False)
class Job:
    """One request on its way through the engine: what was asked, what is known of it so far, news not told yet."""

    request: Request
    prompt: Prompt
    writing: Writing
    matcher: Matcher | None
    lookup: PromptLookup | None
    adapter: Loaded | None
    image_tokens: int
    arrived: float
    started: float = 0.0
    spoke: float = 0.0
    image_seconds: float = 0.0
    embeds_TD: Tensor | None = None
    scores: list[TokenScore] = field(default_factory=list)
    told: int = 0
    news: deque[Chunk] = field(default_factory=deque)
    error: Exception | None = None
    over: bool = False


class Engine:
    """Answers the requests of one model; see the module for how to use it."""

    def __init__(
        self, checkpoint: Checkpoint, options: EngineOptions | None = None, features: FeatureCache | None = None
    ) -> None:
        self.options = options = options or EngineOptions()
        self.model, self.config = checkpoint.model.eval(), checkpoint.config
        self.tokenizer = checkpoint.prompts.tokenizer
        alone = sums_rows_alone(self.model)
        pool = BlockPool(self._blocks(), options.block)
        grain = options.block if alone else options.chunk
        self.scheduler = Scheduler(
            pool, SchedulerOptions(max_running=options.running, chunk=options.chunk, rows=options.rows, grain=grain)
        )
        self.runner = Runner(
            self.model, blocks=pool.count, block=pool.size, rows=options.rows, tile=grain, padded=not alone
        )
        self.sight = Sight(self.model, features or FeatureCache(options.feature_bytes, options.feature_folder))
        self.adapters = Adapters(self.config, self.model.device)
        self._grammars: GrammarCompiler | None = None
        self._making = threading.Lock()
        self._jobs: dict[Request, Job] = {}
        self._lock = threading.RLock()

    # --- what a caller does ---

    def submit(
        self,
        prompt: Prompt,
        options: SamplingOptions,
        constraint: Constraint | None = None,
        *,
        context: int | None = None,
        adapter: Loaded | None = None,
    ) -> Job:
        """Take a request in; raises PromptError where it does not fit, InputError for a constraint we cannot keep.

        `context` bounds prompt and answer together, where that is less than the model's own. `adapter` is one of
        `engine.adapters`.
        """
        job = self.prepare(prompt, options, constraint, context=context, adapter=adapter)
        self.enter(job)
        return job

    def prepare(
        self,
        prompt: Prompt,
        options: SamplingOptions,
        constraint: Constraint | None = None,
        *,
        context: int | None = None,
        adapter: Loaded | None = None,
        keep: Collection[str] = (),
    ) -> Job:
        """All of `submit` that takes time: it may run beside a step. `enter` does the rest.

        `keep` are special tokens that the text shows.
        """
        request = self._request(prompt, options, context, adapter)
        matcher = self._compiler().matcher(constraint) if constraint else None
        sampler = Sampler(options, prompt.token_ids)
        writing = Writing(options, TextStream(self.tokenizer, keep=keep), sampler, request.limit)
        lookup = self._lookup(prompt) if self.options.speculate else None
        seen = sum(self.config.image_tokens(image.height, image.width) for image in prompt.images)
        return Job(request, prompt, writing, matcher, lookup, adapter, seen, time.perf_counter())

    def enter(self, job: Job) -> None:
        """Let a prepared job take part; raises PromptError where the cache could never hold it."""
        with self._lock:
            if job.request.limit == 0:
                job.writing.end("length")
                self._tell(job)
                return
            self.scheduler.add(job.request)
            self._jobs[job.request] = job
            if job.matcher is not None:
                self._force(job)
                self._tell(job)

    def stream(self, job: Job) -> Iterator[Chunk]:
        """What is said, as it is said; leaving early aborts the job."""
        for _, chunk in self.stream_all([job]):
            yield chunk

    def stream_all(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Chunk]]:
        """News of several jobs as they come; leaving early aborts those that are not over."""
        try:
            while True:
                waiting = [job for job in jobs if not job.over]
                for job in jobs:
                    while job.news:
                        yield job, job.news.popleft()
                    if job.error is not None:
                        raise job.error
                if not waiting:
                    return
                with self._lock:
                    if not any(job.news or job.over for job in waiting):
                        self.step()
        finally:
            for job in jobs:
                self.abort(job)

    def abort(self, job: Job) -> None:
        """Say no more; its blocks are free before the next step. Once more, or afterwards, does nothing."""
        with self._lock:
            if not job.over:
                self._end(job)

    def finish(self, job: Job) -> None:
        """Let what was said be the whole answer, as if it had reached its limit; once it is over this does nothing."""
        with self._lock:
            if not job.over:
                job.writing.end("length")
                self._tell(job)

    # --- a step ---

    @torch.inference_mode()
    def step(self) -> bool:
        """Compute the next plan for all jobs; False where there is nothing to do."""
        with self._lock:
            self._guess()
            plan = self.scheduler.plan()
            if plan is None:
                return False
            try:
                spoken = list(self._compute(plan))
            except Exception as error:
                self._fail(plan.works, error)
                return True
            for work, scores_NV in spoken:
                try:
                    self._settle(work, scores_NV)
                except Exception as error:  # a grammar too costly to follow, say: one answer's own trouble
                    self._fail([work], error)
            return True

    def _compute(self, plan: Plan) -> Iterator[tuple[Work, Tensor | None]]:
        if plan.prefill is not None:
            work, job = plan.prefill, self._jobs[plan.prefill.request]
            embeds_TD = self._embed(job)
            yield work, self.runner.read(work, embeds_TD[work.start : work.stop], _adapter(job))
            if work.stop == work.request.prompt_length:
                job.embeds_TD = None
        if plan.decode:
            adapters = [_adapter(self._jobs[work.request]) for work in plan.decode]
            for work, scores_NV in zip(plan.decode, self.runner.say(plan.decode, adapters), strict=True):
                yield work, scores_NV if work.speaks else None

    def _settle(self, work: Work, scores_NV: Tensor | None) -> None:
        """Choose what is said where something is: guesses count as long as they would have been chosen too."""
        job = self._jobs.get(work.request)
        if job is None:
            return
        said: list[int] = []
        if scores_NV is not None:
            for place, scores_V in enumerate(scores_NV):
                said.append(self._choose(job, scores_V))
                if job.writing.finish_reason or place == len(work.drafts) or said[-1] != work.drafts[place]:
                    break
            job.spoke = job.spoke or time.perf_counter()
        self.scheduler.settle(work, said)
        if job.lookup is not None and said:
            job.lookup.settle(len(work.drafts), len(said) - 1)
            job.lookup.extend(said)
        if said:
            if job.matcher is not None and not job.writing.finish_reason:
                self._force(job)
            self._tell(job)

    def _choose(self, job: Job, scores_V: Tensor) -> int:
        if job.matcher is not None:
            scores_V = job.matcher.apply(scores_V)
        sampler = job.writing.sampler
        token = sampler.choose(scores_V)
        if (wanted := job.writing.options.logprobs) is not None:
            job.scores.append(TokenScore.of(scores_V, token, wanted))
        self._say(job, token)
        return token

    def _say(self, job: Job, token: int) -> None:
        """A token more of the answer; it ends where the model, a limit, a stop text or the grammar ends it."""
        job.writing.say(token, self.tokenizer.eos_ids)
        if job.matcher is not None and not job.writing.finish_reason:
            job.matcher.accept(token)
            if job.matcher.finished:
                job.writing.end("stop")

    def _force(self, job: Job) -> None:
        """Say what the grammar leaves no choice about; it is read along with the next token."""
        assert job.matcher is not None
        for token in job.matcher.forced():
            job.request.units.append(token)
            job.writing.sampler.said[token] += 1
            if job.lookup is not None:
                job.lookup.extend([token])
            if job.writing.options.logprobs is not None:
                job.scores.append(TokenScore(token, 0.0, ()))
            self._say(job, token)
            if job.writing.finish_reason:
                break

    def _guess(self) -> None:
        """What each answer may go on with, where rows are left to check it."""
        for request in self.scheduler.running:
            job = self._jobs[request]
            if job.lookup is None or request.reading:
                continue
            drafts = job.lookup.draft()[: request.limit - request.said - 1]
            request.drafts = drafts[: job.matcher.allows(drafts)] if job.matcher is not None else drafts

    def _tell(self, job: Job) -> None:
        """Put what is new where the job's owner finds it; an answer that has ended leaves the engine."""
        text = job.writing.fresh_text()
        # The end token has a score too, but it is none of the answer's tokens.
        scores = tuple(job.scores[job.told : len(job.writing.token_ids)])
        job.told += len(scores)
        if job.writing.finish_reason is None:
            if text or scores:
                job.news.append(Chunk(text=text, scores=scores))
            return
        job.news.append(Chunk(text=text, scores=scores, answer=self._answer(job)))
        self._end(job)

    def _end(self, job: Job) -> None:
        job.over, job.embeds_TD = True, None
        if self._jobs.pop(job.request, None) is not None:
            self.scheduler.finish(job.request)

    def _fail(self, works: Iterable[Work], error: Exception) -> None:
        """What could not be computed ends the jobs that were in it, and no others."""
        for work in works:
            job = self._jobs.get(work.request)
            if job is not None:
                job.error = error
                self._end(job)

    # --- how a request begins ---

    def _request(
        self, prompt: Prompt, options: SamplingOptions, context: int | None, adapter: Loaded | None
    ) -> Request:
        most, length = self.config.text.max_positions, len(prompt.token_ids)
        context = most if context is None else min(context, most)
        if length == 0:
            raise PromptError("the prompt is empty: ask something")
        if length >= context:
            raise PromptError(
                f"the prompt has {length} tokens, at most {context - 1} fit into a context of {context}: shorten it"
                + (f", or raise the context up to {most}" if context < most else "")
            )
        room = context - length
        if options.max_tokens is None:
            # An answer that nobody limited may fill what the cache has.
            room = max(1, min(room, self.scheduler.pool.count * self.options.block - length))
        limit = room if options.max_tokens is None else min(options.max_tokens, room)
        units = units_of(prompt.token_ids, self._pictures(prompt))
        return Request("", units, limit, root=self._root(length, adapter))

    def _pictures(self, prompt: Prompt) -> list[Picture]:
        """Where each picture's placeholders stand."""
        pictures, at = [], 0
        for image in prompt.images:
            count = self.config.image_tokens(image.height, image.width)
            at = prompt.token_ids.index(self.config.image_token_id, at)
            pictures.append(Picture(image.digest, at, count))
            at += count
        return pictures

    def _root(self, length: int, adapter: Loaded | None) -> int:
        """Prompts share no keys with those of another adapter.

        Nor do those past the length at which a long rope's frequencies change, with shorter ones.
        """
        rope = self.config.text.rope
        changes = rope.kind == "longrope" and length > (rope.original_max_positions or self.config.text.max_positions)
        return ROOT - 2 * (0 if adapter is None else adapter.number) - changes

    def _embed(self, job: Job) -> Tensor:
        """The prompt's embeddings (T, D), pictures in place; made when its first chunk is read."""
        if job.embeds_TD is None:
            started = time.perf_counter()
            job.started = job.started or started
            features = [self.sight.features(image) for image in job.prompt.images]
            ids_BT = torch.tensor([job.prompt.token_ids], device=self.model.device)
            job.embeds_TD = self.model.embed(ids_BT, features)[0]
            job.image_seconds += time.perf_counter() - started if features else 0.0
        return job.embeds_TD

    def _lookup(self, prompt: Prompt) -> PromptLookup:
        lookup = PromptLookup(never=frozenset({self.config.image_token_id}))
        lookup.extend(prompt.token_ids)
        return lookup

    def _compiler(self) -> GrammarCompiler:
        with self._making:
            if self._grammars is None:
                self._grammars = GrammarCompiler(self.tokenizer, self.config.text.vocab_size)
            return self._grammars

    def _blocks(self) -> int:
        """How many blocks the memory for keys and values makes, and no more than `running` whole contexts."""
        text, options = self.config.text, self.options
        size = 2 * text.num_layers * text.num_kv_heads * text.head_dim * self.model.dtype.itemsize * options.block
        most = options.running * -(-text.max_positions // options.block)
        return max(1, min(options.cache_bytes // size, most))

    def _answer(self, job: Job) -> Answer:
        now, writing = time.perf_counter(), job.writing
        assert writing.finish_reason is not None
        started, spoke = job.started or now, job.spoke or now
        return Answer(
            text=writing.text,
            finish_reason=writing.finish_reason,
            token_ids=tuple(writing.token_ids),
            prompt_tokens=len(job.prompt.token_ids),
            cached_tokens=job.request.reused,
            image_tokens=job.image_tokens,
            queue_seconds=started - job.arrived,
            image_seconds=job.image_seconds,
            prefill_seconds=spoke - started - job.image_seconds,
            decode_seconds=now - spoke,
            logprobs=tuple(job.scores) if writing.options.logprobs is not None else None,
            stopped_by=writing.stopped_by,
        )


def _adapter(job: Job) -> Adapter | None:
    return None if job.adapter is None else job.adapter.adapter
