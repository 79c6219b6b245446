"""The loop under every kind of training: steps, schedule, checkpoints, and a clear word when it must stop."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TextIO

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lapilli.errors import TrainingError
from lapilli.ground.files import publish
from lapilli.training.curves import draw_curves
from lapilli.training.distributed import Ranks, join
from lapilli.training.recipe import LoopOptions
from lapilli.training.sharding import whole_of
from lapilli.training.state import STATE_FILE as STATE_FILE
from lapilli.training.state import State, own_state
from lapilli.training.state import trained_weights as trained_weights

METRICS_FILE = "metrics.jsonl"
CURVES_FILE = "loss.png"
BOARD_FOLDER = "tensorboard"


class Objective(Protocol):
    """What is learnt: the weights, the batches and the loss."""

    def modules(self) -> nn.Module:
        """Everything a run must keep; what learns has `requires_grad`."""

    def batches(self, first_step: int) -> Iterator[Any]:
        """Batches from that step on; step n's batch depends on the seed and n alone."""

    def loss(self, batch: Any) -> dict[str, Tensor]:
        """The scalar `loss` to descend, and further scalars worth logging.

        A batch that is a tuple is computed piece by piece, each piece's scalars being its part of a sum.
        """


def run(
    objective: Objective,
    options: LoopOptions,
    folder: Path,
    *,
    minutes: float | None = None,
    device: torch.device | str = "cpu",
    whole: bool = True,
) -> int:
    """Train until `options.steps`, or until the minutes are over; returns the step reached.

    The folder holds the state (weights, optimizer, step), `metrics.jsonl` and its curves as `loss.png`; calling again
    goes on from there. Ctrl-C saves first. Where `whole` is False, only what learns is kept: the rest must come from
    elsewhere. Raises TrainingError where the loss is no number, naming the step and its records.
    """
    folder.mkdir(parents=True, exist_ok=True)
    module = objective.modules().to(device)
    learning = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not learning:
        raise TrainingError("nothing is to be learnt: every parameter is frozen")
    torch.manual_seed(options.seed)
    optimizers = _optimizers(module, options)
    kept = own_state(module) if whole else {name: p.detach() for name, p in learning.items()}
    ema = {f"ema.{name}": p.detach().clone() for name, p in learning.items()} if options.ema else {}
    ranks = join()
    state = State(folder, {**kept, **ema}, optimizers, learning, ranks)
    step = state.restore()
    if step >= options.steps:
        return step
    module.train()
    attention = _attention(module)
    started, saved = time.monotonic(), time.monotonic()
    autocast: AbstractContextManager[Any] = (
        torch.autocast(torch.device(device).type, torch.bfloat16) if options.bf16 else nullcontext()
    )
    with (
        _Interrupt() as interrupt,
        _progress(ranks) as progress,
        _metrics(folder, ranks, step) as metrics,
        _board(folder, ranks, step) as board,
    ):
        bar = progress.add_task(folder.name, total=options.steps, completed=step, loss="")
        first, logged = step, (step, time.monotonic())
        for batch in objective.batches(step):
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = _rate(step, options) * group["share"]
            # What a step draws by chance depends on the step alone, so that a run that was cut goes on the same.
            torch.manual_seed((options.seed << 32) + step * ranks.world + ranks.rank)
            losses: dict[str, Tensor] = {}
            for piece in batch if isinstance(batch, tuple) else (batch,):
                with sdpa_kernel(attention):  # for the way back, too: a block that is computed again is the same then
                    with autocast:
                        found = objective.loss(piece)
                    if not bool(torch.isfinite(found["loss"])):
                        raise _not_a_number(objective, found["loss"], step, options, folder)
                    if found["loss"].requires_grad:  # a piece without a picture teaches a projector nothing
                        found["loss"].backward()  # type: ignore[no-untyped-call]
                for name, value in found.items():
                    losses[name] = losses[name] + value.detach() if name in losses else value.detach()
            if not state.sharded:  # what is shared out was averaged on its way
                ranks.average(learning.values())
            norm = whole_of(nn.utils.clip_grad_norm_(list(learning.values()), options.clip))
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            for name, mean in ema.items():
                mean.lerp_(learning[name.removeprefix("ema.")].detach(), 1 - options.ema)
            step += 1
            if step % options.log_every == 0 or step == options.steps:
                now = time.monotonic()
                line = {name: round(ranks.total(float(value)) / ranks.world, 6) for name, value in losses.items()}
                rate = (step - logged[0]) / (now - logged[1])
                logged = (step, now)
                line |= {"step": step, "norm": round(float(norm), 4), "steps_per_second": round(rate, 3)}
                metrics.write(json.dumps(line) + "\n")
                metrics.flush()
                for name in line.keys() - {"step"} if board is not None else ():
                    board.add_scalar(name, line[name], step)
                progress.update(bar, completed=step, loss=f"loss {line['loss']:.4f}")
            over = minutes is not None and time.monotonic() - started > minutes * 60
            ends = ranks.agree(over or interrupt.asked) or step >= options.steps
            due = ends or time.monotonic() - saved > options.save_minutes * 60
            if ranks.agree(due) if state.sharded else due and ranks.leads:
                state.save(step)
                saved = time.monotonic()
                if ranks.leads:
                    draw_curves(folder / METRICS_FILE, folder / CURVES_FILE)
            if ends:
                break
        if step == first:
            raise TrainingError("the objective gave no batch: there is nothing to train on")
    if interrupt.asked:
        progress.console.print(f"stopped at step {step}, saved in {folder}; the same command goes on from there")
        raise KeyboardInterrupt
    return step


def _not_a_number(objective: Objective, loss: Tensor, step: int, options: LoopOptions, folder: Path) -> TrainingError:
    names = getattr(objective, "names", None)
    made_of = f", made of {', '.join(names(step)[:8])}" if names is not None else ""
    return TrainingError(
        f"the loss is {loss.item()} at step {step}{made_of}: lower the rate ({options.rate}); "
        f"the last good state is kept in {folder}"
    )


def _attention(module: nn.Module) -> list[SDPBackend]:
    """On a CPU the fused kernel's backward pass is slower than plain products at these lengths."""
    on_cpu = next(module.parameters()).device.type == "cpu"
    return (
        [SDPBackend.MATH] if on_cpu else [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    )


def _optimizers(module: nn.Module, options: LoopOptions) -> list[torch.optim.Optimizer]:
    """AdamW for all that learns; with "muon", Muon (kellerjordan.github.io/posts/muon) for linear layers' weights."""
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    linear = {id(part.weight) for part in module.modules() if isinstance(part, nn.Linear)} - embeddings
    # Parameters of one rate and one decay make a group; `share` is their rate against the schedule's own.
    groups: dict[tuple[bool, float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        muon = options.optimizer == "muon" and id(parameter) in linear
        own = next((rate for start, rate in options.rates.items() if name.startswith(start)), options.rate)
        decay = options.weight_decay if parameter.ndim >= 2 else 0.0
        groups.setdefault((muon, own / options.rate, decay), []).append(parameter)
    optimizers: list[torch.optim.Optimizer] = []
    for wants_muon in (False, True):
        chosen = [
            {"params": group, "share": share, "weight_decay": decay}
            for (muon, share, decay), group in groups.items()
            if muon is wants_muon
        ]
        if chosen and wants_muon:
            # Updates as large as AdamW's (arXiv 2502.16982), so that one rate serves both.
            optimizers.append(torch.optim.Muon(chosen, lr=options.rate, adjust_lr_fn="match_rms_adamw"))
        elif chosen:
            optimizers.append(torch.optim.AdamW(chosen, lr=options.rate, betas=options.betas, eps=1e-8, fused=True))
    return optimizers


def _rate(step: int, options: LoopOptions) -> float:
    """Linear warm-up, then a cosine down to the floor."""
    if step < options.warmup:
        return options.rate * (step + 1) / options.warmup
    done = (step - options.warmup) / max(1, options.steps - options.warmup)
    return options.rate * (options.floor + (1 - options.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


class _Interrupt:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the step in hand."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> _Interrupt:
        self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        self.asked = True


def _metrics(folder: Path, ranks: Ranks, step: int) -> TextIO:
    """The file of metrics, to be gone on with; lines of steps that were lost with a cut are taken out."""
    if not ranks.leads:
        return Path(os.devnull).open("a")
    path = folder / METRICS_FILE
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        valid = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        if valid != lines:
            with publish(path) as fresh:
                fresh.write_text("".join(valid))
    return path.open("a")


def _board(folder: Path, ranks: Ranks, step: int) -> AbstractContextManager[Any]:
    """Events for TensorBoard, where its package is installed."""
    if not ranks.leads or importlib.util.find_spec("tensorboard") is None:
        return nullcontext()
    from torch.utils.tensorboard import SummaryWriter

    writer: AbstractContextManager[Any] = SummaryWriter(str(folder / BOARD_FOLDER), purge_step=step + 1)
    return writer


def _progress(ranks: Ranks) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
        refresh_per_second=2,
        disable=not ranks.leads,
    )
