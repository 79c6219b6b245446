"""How long, how fast and from where: the numbers of a training run, frozen, and the recipes that are read from TOML."""

from __future__ import annotations

import dataclasses
import importlib.resources
import math
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lapilli.errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """What the loop needs to know; what is trained, the objective knows.

    `rate` is the peak of a cosine schedule after `warmup` steps; it ends at `rate * floor`. `rates` gives parameters
    whose name begins with a key a peak of their own. Weight decay touches matrices only. `ema` above 0 keeps a mean of
    the weights, each step taking over 1 - ema of them. `save_minutes` is how much work a cut can cost. "muon" turns the
    weights of linear layers by Muon and leaves the rest to AdamW.
    """

    steps: int
    rate: float
    rates: Mapping[str, float] = field(default_factory=dict)
    warmup: int = 200
    floor: float = 0.02
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    ema: float = 0.0
    seed: int = 0
    save_minutes: float = 5.0
    log_every: int = 20
    bf16: bool = True
    optimizer: Literal["adamw", "muon"] = "adamw"


@dataclass(frozen=True, kw_only=True)
class TowerOptions:
    """The contrastive stage: what is seen in a batch, and how its losses are weighed."""

    batch: int = 64
    text_layers: int = 1
    region_weight: float = 1.0
    caption_weight: float = 0.25
    seed: int = 31
    workers: int = 1


Linear = Literal["q", "k", "v", "out", "gate", "up", "down"]


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Adapters of low rank on the decoder's linear layers (arXiv 2106.09685)."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[Linear, ...] = get_args(Linear)


Trained = Literal["projector", "language", "projector+language"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One stage of LLaVA's training (arXiv 2304.08485), with where its numbers come from.

    `batch` is samples a step over all processes, `at_once` tokens computed together in one. With `lora` the decoder
    itself is frozen and its adapters learn; `quantize` keeps that frozen decoder in few bits (arXiv 2305.14314).
    With `shard` several processes share the weights out among them (FSDP2), else each holds all and they average
    gradients: the first takes the least memory, the second the least talk.
    """

    name: str
    source: str = ""
    train: Trained = "projector+language"
    epochs: float = 1.0
    batch: int = 32
    at_once: int = 8192
    rate: float = 2e-5
    projector_rate: float | None = None
    warmup_share: float = 0.03
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    ema: float = 0.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    max_tokens: int = 2048
    plain: bool = False
    pack: int = 1024
    bf16: bool = True
    checkpointing: bool = False
    lora: LoraOptions | None = None
    quantize: Literal["int8", "int4"] | None = None
    shard: bool = False
    seed: int = 0
    save_minutes: float = 5.0
    log_every: int = 10

    def __post_init__(self) -> None:
        for name in ("batch", "at_once", "max_tokens", "log_every"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        self._require("pack", self.pack >= 0, "at least 0")
        self._require("epochs", self.epochs > 0, "above 0")
        self._require("rate", self.rate > 0, "above 0")
        self._require("warmup_share", 0 <= self.warmup_share < 1, "from 0 to below 1")
        self._require("ema", 0 <= self.ema < 1, "from 0 to below 1")
        if self.quantize and not self.lora:
            raise TrainingError(f"recipe {self.name}: quantize = {self.quantize!r} needs lora: few bits cannot learn")
        if self.shard and self.optimizer == "muon":
            raise TrainingError(f"recipe {self.name}: muon needs whole matrices: use adamw, or shard = false")
        if self.lora and self.train == "projector":
            raise TrainingError(f"recipe {self.name}: lora has nothing to adapt where the projector alone learns")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise TrainingError(f"recipe {self.name}: {name} is {getattr(self, name)}, it must be {allowed}")

    def steps(self, samples: int) -> int:
        """How many steps that many samples make."""
        return max(1, math.ceil(samples * self.epochs / self.batch))

    def loop(self, samples: int) -> LoopOptions:
        """The numbers of the loop for that many samples."""
        steps = self.steps(samples)
        return LoopOptions(
            steps=steps,
            rate=self.rate,
            rates={} if self.projector_rate is None else {"projector.": self.projector_rate},
            warmup=math.ceil(steps * self.warmup_share),
            floor=0.0,
            weight_decay=self.weight_decay,
            betas=self.betas,
            clip=self.clip,
            ema=self.ema,
            seed=self.seed,
            save_minutes=self.save_minutes,
            log_every=self.log_every,
            bf16=self.bf16,
            optimizer=self.optimizer,
        )

    @classmethod
    def read(cls, name_or_path: str | Path, changes: Sequence[str] = ()) -> Recipe:
        """A published recipe by name, or a TOML file; `changes` are `key=value`, `lora.rank=8` among them.

        Raises TrainingError for a name that is not known, or a key or value that is none, with what there is.
        """
        text = str(name_or_path)
        known = recipe_names()
        if text in known:
            source = _shelf().joinpath(f"{text}.toml").read_text("utf-8")
        elif Path(text).is_file():
            source = Path(text).read_text("utf-8")
        else:
            raise TrainingError(f"no recipe {text[:80]!r}: there are {', '.join(known)}; or give a TOML file")
        try:
            values = tomllib.loads(source)
            for change in changes:
                _put(values, change)
        except tomllib.TOMLDecodeError as error:
            raise TrainingError(f"recipe {text}: {error}") from None
        name = Path(text).name.removesuffix(".toml")
        recipe: Recipe = _build(cls, {"name": name, **values}, f"recipe {text}")
        return recipe


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(entry.name.removesuffix(".toml") for entry in _shelf().iterdir() if entry.name.endswith(".toml"))


def _shelf() -> Traversable:
    return importlib.resources.files("lapilli.training").joinpath("recipes")


def _put(values: dict[str, Any], change: str) -> None:
    """Set one `key=value`; the value is TOML, a bare word a string."""
    key, equals, told = change.partition("=")
    *path, last = key.strip().split(".")
    if not equals or not last:
        raise TrainingError(f"--set {change[:80]}: it must be key=value")
    try:
        value = tomllib.loads(f"value = {told}")["value"]
    except tomllib.TOMLDecodeError:
        value = told.strip()
    for name in path:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise TrainingError(f"--set {change[:80]}: {name} holds no keys")
    if value == "none":
        values.pop(last, None)
    else:
        values[last] = value


def _build(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """A frozen dataclass from TOML's values, every key and type checked."""
    hints = get_type_hints(kind)
    unknown = sorted(values.keys() - hints.keys())
    if unknown:
        raise TrainingError(f"{where}: {', '.join(unknown)[:80]}: no such key; there are {', '.join(hints)}")
    return kind(**{name: _fit(hints[name], value, f"{where}: {name}") for name, value in values.items()})


def _fit(hint: Any, value: Any, where: str) -> Any:
    """The value as its annotation wants it; raises TrainingError that says what is wanted."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        if get_origin(option) is Literal:
            if value in get_args(option):
                return value
        elif get_origin(option) is tuple and isinstance(value, list):
            inner = get_args(option)
            if inner[-1] is Ellipsis or len(inner) == len(value):
                return tuple(_fit(inner[0], item, where) for item in value)
        elif dataclasses.is_dataclass(option) and isinstance(value, dict):
            return _build(option, value, where)  # type: ignore[arg-type]
        elif option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        elif isinstance(option, type) and option is not float and type(value) is option:
            return value
    wanted = [
        " or ".join(map(repr, get_args(o))) if get_origin(o) is Literal else getattr(o, "__name__", str(o))
        for o in options
        if o is not type(None)
    ]
    raise TrainingError(f"{where} is {value!r}, it must be {' or '.join(wanted)}")
