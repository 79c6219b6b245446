"""A model's own process: asks come in through a pipe, news go out through another.

One thread reads the pipe, a few build prompts and open pictures, one computes vectors, one draws heat maps, and the
main thread takes the steps of the one engine, in which all that is asked at once is answered together.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from lapilli.engine import pipe
from lapilli.engine.adapters import Loaded
from lapilli.engine.answer import Answer, Chunk, TokenScore
from lapilli.engine.ask import Ask, Finished, LoadOrder, ModelFacts, News, TokenNews
from lapilli.engine.engine import EngineOptions, Job
from lapilli.engine.intake import Intake, Intaken
from lapilli.engine.local import LocalModel, open_checkpoint
from lapilli.engine.sampler import SamplingOptions
from lapilli.engine.scores import embed
from lapilli.errors import InputError, LapilliError
from lapilli.ground.parent import die_with
from lapilli.inputs.prompt import Prompt
from lapilli.model.llava import Llava
from lapilli.model.lora import Adaptable
from lapilli.model.quantized import QuantizedEmbedding, QuantizedLinear

_BUILDERS = 2  # threads that build prompts: as many as template children are kept ready
# A model with fewer weights is no faster on two cores than on one, and whoever serves it needs the other.
_SMALL = 50_000_000


def main(parent: int) -> None:
    """Serve until the pipe closes or a stop is asked for; `parent` is the process that must live."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started us decides
    incoming, outlet = io.FileIO(os.dup(0), "rb"), Outlet(os.dup(1))
    # What anything prints goes to the log, not between the frames.
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.dup2(2, 1)
    try:
        frame = pipe.receive_blocking(incoming)
        if frame is None:
            os._exit(0)
        worker = Worker(pipe.read_order(frame), outlet)
    except Exception as error:
        _report(error)
        outlet.send([pipe.error_frame(0, error)])
        os._exit(1)
    outlet.send([pipe.facts_frame(worker.facts)])
    threading.Thread(target=worker.listen, args=(incoming,), name="pipe", daemon=True).start()
    try:
        worker.run()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # nothing here is worth the time of taking it apart


class Outlet:
    """The pipe to the parent, for several threads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, frames: Iterable[pipe.Frame]) -> None:
        left = memoryview(b"".join(frame.packed() for frame in frames))
        with self._lock:
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BrokenPipeError:
                    os._exit(0)  # nobody is there any more


@dataclass(eq=False)
class Asked:
    """One request on its way through this process."""

    number: int
    ask: Ask | None = None
    intaken: Intaken | None = None
    adapter: Loaded | None = None
    job: Job | None = None
    begun: bool = False
    aborted: bool = False


class Worker:
    """One loaded model and all that is asked of it; `listen` is for the thread of the pipe, `run` for the main one."""

    def __init__(self, order: LoadOrder, outlet: Outlet) -> None:
        self._outlet = outlet
        self._model = _load(order)
        self._engine = self._model.engine
        pool = self._engine.scheduler.pool
        most = pool.count * pool.size  # what the cache holds, a context cannot be longer
        context = most if order.context is None else min(order.context, most)
        self._intake = Intake(self._model.checkpoint, order.template, context)
        self.facts = _facts(self._model, self._intake)
        self._asked: dict[int, Asked] = {}
        self._running: dict[int, Asked] = {}
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._builders = ThreadPoolExecutor(_BUILDERS, "prompt")
        self._embedders = ThreadPoolExecutor(1, "embed")
        self._drawers = ThreadPoolExecutor(1, "heat")
        self._stopping = False
        self._since: float | None = None
        self._warm()

    def _warm(self) -> None:
        """Do once what takes longer the first time: a prompt written out, weights read from the disk, two tokens."""
        with contextlib.suppress(LapilliError):
            self._intake.render(Ask(messages=({"role": "user", "content": "?"},)))
        token = int(self._model.config.image_token_id == 0)  # any that is no picture's
        job = self._engine.submit(Prompt([token]), SamplingOptions(max_tokens=2))
        for _ in self._engine.stream(job):
            pass

    # --- the thread of the pipe ---

    def listen(self, incoming: io.FileIO) -> None:
        """Take frames in until the pipe closes, which ends this process."""
        try:
            while frame := pipe.receive_blocking(incoming):
                self._hear(frame)
        except BaseException:
            traceback.print_exc()
        os._exit(0)

    def _hear(self, frame: pipe.Frame) -> None:
        asked = Asked(frame.number)
        if frame.kind == "ask":
            self._asked[frame.number] = asked
            self._builders.submit(self._guarded, asked, lambda: self._build(asked, pipe.read_ask(frame)))
        elif frame.kind == "embed":
            self._asked[frame.number] = asked
            self._embedders.submit(self._guarded, asked, lambda: self._embed(asked, frame))
        elif frame.kind in ("tokenize", "detokenize"):
            self._builders.submit(self._guarded, asked, lambda: self._translate(frame))
        elif frame.kind == "abort":
            if gone := self._asked.get(frame.number):
                gone.aborted = True
                self._commands.put(lambda: self._abort(gone))
        elif frame.kind == "occupancy":
            self._commands.put(lambda: self._count(frame.number))
        elif frame.kind == "ping":
            since = self._since
            stalled = 0.0 if since is None else time.monotonic() - since
            self._outlet.send([pipe.Frame({"kind": "pong", "stalled": stalled})])
        elif frame.kind == "stop":
            self._commands.put(self._stop)

    # --- threads that take their time ---

    def _guarded(self, asked: Asked, work: Callable[[], None]) -> None:
        if asked.aborted:
            self._forget(asked)
            return
        try:
            work()
        except BaseException as error:
            self._refuse(asked, error)

    def _build(self, asked: Asked, ask: Ask) -> None:
        asked.ask = ask
        if ask.render_only:
            finished = Finished(reason="stop", rendered=self._intake.render(ask))
            self._outlet.send([pipe.news_frame(asked.number, News(finished=finished))])
            self._forget(asked)
            return
        asked.intaken = intaken = self._intake.take(ask)
        asked.adapter = None if ask.adapter is None else self._engine.adapters.get(ask.adapter)
        asked.job = self._engine.prepare(
            intaken.prompt, intaken.options, intaken.constraint,
            context=intaken.context, adapter=asked.adapter, keep=ask.keep,
        )  # fmt: skip
        self._commands.put(lambda: self._enter(asked))

    def _embed(self, asked: Asked, frame: pipe.Frame) -> None:
        head, adapter = frame.head, frame.head.get("adapter")
        prompts = [self._intake.plain(text, head["truncate"], head["context"]) for text in head["texts"]]
        model = self._with_adapter(None if adapter is None else self._engine.adapters.get(Path(adapter)))
        vectors = []
        for prompt, _ in prompts:
            if asked.aborted:
                break
            vectors.append(embed(model, prompt).tolist())
        read = sum(len(prompt.token_ids) for prompt, _ in prompts)
        self._outlet.send([pipe.embedded_frame(asked.number, vectors, read, sum(cut for _, cut in prompts))])
        self._forget(asked)

    def _translate(self, frame: pipe.Frame) -> None:
        tokenizer, head = self._model.tokenizer, frame.head
        value: object
        if frame.kind == "tokenize":
            value = tokenizer.encode(head["text"])
        else:
            rows = self._model.config.text.vocab_size
            if not all(isinstance(index, int) and 0 <= index < rows for index in head["ids"]):
                raise InputError(f"token ids go from 0 to {rows - 1}")
            value = tokenizer.decode(head["ids"])
        self._outlet.send([pipe.Frame({"kind": "value", "number": frame.number, "value": value})])

    def _draw(self, asked: Asked, answer: Answer) -> None:
        """Where the answer was seen in the pictures, and with that the last news."""
        from lapilli.engine.heatmap import draw
        from lapilli.engine.relevance import relevance

        assert asked.intaken is not None
        prompt, processor = asked.intaken.prompt, self._model.prompts.image_processor
        assert processor is not None, "a model that answered about a picture has prepared it"
        model, drawn = self._with_adapter(asked.adapter), io.BytesIO()
        seen = relevance(model, prompt, answer.token_ids, processor, features=self._model.features(prompt))
        draw(asked.intaken.pictures, seen, answer.text).save(drawn, format="PNG")
        finished = dataclasses.replace(self._finished(asked, answer), heatmap=drawn.getvalue())
        self._outlet.send([pipe.news_frame(asked.number, News(finished=finished))])
        self._forget(asked)

    def _with_adapter(self, loaded: Loaded | None) -> Llava:
        """The model for one thread's use beside the engine's; no weight is copied."""
        return self._model.model if loaded is None else Adaptable(self._model.model).all(loaded.adapter)

    # --- the main thread ---

    def run(self) -> None:
        """Take steps while there is something to say, until a stop is asked for and all is said."""
        idle = False
        while not (self._stopping and not self._asked):
            self._obey(wait=not self._running or idle)
            idle = False
            if self._running:
                self._since = time.monotonic()
                idle = not self._engine.step()
                self._end_late()
                self._tell()
                self._since = None

    def _obey(self, *, wait: bool) -> None:
        """Do all that has been told meanwhile; where there is nothing else to do, wait for it."""
        with contextlib.suppress(queue.Empty):
            if wait:
                # What is over ends in other threads too, which is looked at now and then.
                self._commands.get(timeout=0.05 if self._running or self._stopping else None)()
            while True:
                self._commands.get_nowait()()

    def _end_late(self) -> None:
        """End the answers whose time is over."""
        now = time.perf_counter()
        for asked in self._running.values():
            assert asked.ask is not None
            assert asked.job is not None
            if asked.ask.seconds is not None and now - asked.job.arrived > asked.ask.seconds:
                self._engine.finish(asked.job)

    def _enter(self, asked: Asked) -> None:
        assert asked.job is not None
        if asked.aborted:
            self._forget(asked)
            return
        try:
            self._engine.enter(asked.job)
        except LapilliError as error:
            self._refuse(asked, error)
            return
        self._running[asked.number] = asked
        self._tell()

    def _abort(self, asked: Asked) -> None:
        if asked.job is not None:
            self._engine.abort(asked.job)
        self._running.pop(asked.number, None)
        self._forget(asked)

    def _stop(self) -> None:
        self._stopping = True

    def _count(self, number: int) -> None:
        scheduler = self._engine.scheduler
        value = {
            "asked": len(self._asked),
            "running": len(scheduler.running),
            "waiting": len(scheduler.waiting),
            "blocks": scheduler.pool.count,
            "free_blocks": scheduler.pool.free,
        }
        self._outlet.send([pipe.Frame({"kind": "value", "number": number, "value": value})])

    def _tell(self) -> None:
        """What is new of every answer, in one go."""
        frames: list[pipe.Frame] = []
        for asked in list(self._running.values()):
            job = asked.job
            assert job is not None
            while job.news:
                frames += self._news(asked, job.news.popleft())
            if job.error is not None:
                _report(job.error)
                frames.append(pipe.error_frame(asked.number, job.error))
                self._running.pop(asked.number, None)
                self._forget(asked)
        if frames:
            self._outlet.send(frames)

    def _news(self, asked: Asked, chunk: Chunk) -> Iterable[pipe.Frame]:
        assert asked.ask is not None
        text = chunk.text
        if ask_is_chat(asked.ask) and not asked.begun:
            # The blank between the cue and the first word belongs to the format, not to the answer.
            text = text.lstrip()
            asked.begun = bool(text)
        tokens, answer = tuple(self._token(score) for score in chunk.scores), chunk.answer
        if answer is None:
            return [pipe.news_frame(asked.number, News(text=text, tokens=tokens))] if text or tokens else []
        del self._running[asked.number]
        if asked.ask.heatmap and answer.token_ids:
            self._drawers.submit(self._guarded, asked, lambda: self._draw(asked, answer))
            return [pipe.news_frame(asked.number, News(text=text, tokens=tokens))]
        self._forget(asked)
        return [pipe.news_frame(asked.number, News(text=text, tokens=tokens, finished=self._finished(asked, answer)))]

    def _finished(self, asked: Asked, answer: Answer) -> Finished:
        assert asked.intaken is not None
        names = {item.name for item in dataclasses.fields(Finished)} & {*dir(answer)}
        return Finished(
            reason=answer.finish_reason,
            truncated=asked.intaken.truncated,
            ids=(*asked.intaken.prompt.token_ids, *answer.token_ids),
            **{name: getattr(answer, name) for name in names},
        )

    def _token(self, score: TokenScore) -> TokenNews:
        def data(token: int) -> bytes:
            return self._model.tokenizer.token_bytes(token, skip_special=False)

        top = tuple((data(token), logprob) for token, logprob in score.top)
        return TokenNews(data=data(score.token_id), logprob=score.logprob, top=top)

    def _refuse(self, asked: Asked, error: BaseException) -> None:
        _report(error)
        self._outlet.send([pipe.error_frame(asked.number, error)])
        self._forget(asked)

    def _forget(self, asked: Asked) -> None:
        self._asked.pop(asked.number, None)


def ask_is_chat(ask: Ask) -> bool:
    """Whether it asks for an assistant's turn, not for the rest of a text."""
    return ask.prompt is None


def _report(error: BaseException) -> None:
    """What nobody foresaw goes to the log in full."""
    if not isinstance(error, LapilliError):
        traceback.print_exception(error)


def _load(order: LoadOrder) -> LocalModel:
    values = dict(order.engine)
    if values.get("feature_folder") is not None:
        values["feature_folder"] = Path(values["feature_folder"])
    try:
        options = EngineOptions(**values)
    except TypeError as error:
        raise InputError(f"engine options: {str(error).removeprefix('EngineOptions.__init__() ')}") from None
    checkpoint = open_checkpoint(
        order.path, quantize=order.quantize, device=order.device, dtype=order.dtype, projector=order.projector
    )
    if sum(weight.numel() for weight in checkpoint.model.parameters()) < _SMALL:
        torch.set_num_threads(1)
    return LocalModel(checkpoint, options)


def _facts(model: LocalModel, intake: Intake) -> ModelFacts:
    text, pool, template = model.config.text, model.engine.scheduler.pool, intake.template
    tensors = [*model.model.parameters(), *model.model.buffers()]
    quantized = [m for m in model.model.modules() if isinstance(m, QuantizedLinear | QuantizedEmbedding)]
    return ModelFacts(
        context_length=text.max_positions,
        embedding_length=text.hidden_size,
        vocabulary=text.vocab_size,
        parameters=sum(p.numel() for p in model.model.parameters())
        + sum(m.weight.shape[0] * m.weight.shape[1] for m in quantized),
        weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        bytes_a_token=2 * text.num_layers * text.num_kv_heads * text.head_dim * model.model.dtype.itemsize,
        cache_tokens=pool.count * pool.size,
        sees=model.prompts.sees,
        uses_tools=template.uses_tools,
        thinks=template.thinks,
        inserts=template.inserts,
        device=str(torch.device(model.model.device)),
    )
