"""What a run keeps on disk: in one file, or where the weights are shared out, each process its part (torch's DCP).

Both are safetensors, both appear whole or not at all, and either is read by any number of processes.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lapilli.errors import TrainingError
from lapilli.ground.files import publish
from lapilli.training.distributed import Ranks
from lapilli.training.sharding import is_sharded

STATE_FILE = "state.safetensors"
_SHARDED = re.compile(r"state-(\d{9})")
_STEP = "step"


@dataclass(frozen=True)
class State:
    """The tensors of a run: `kept` by their names, and what the optimizers remember of those that learn."""

    folder: Path
    kept: Mapping[str, Tensor]
    optimizers: Sequence[torch.optim.Optimizer]
    learning: Mapping[str, nn.Parameter]
    ranks: Ranks

    @property
    def sharded(self) -> bool:
        return any(is_sharded(value) for value in self.kept.values())

    def save(self, step: int) -> None:
        """Write the state in place of the last; where it is shared out, every process calls this, else the leader."""
        tensors = {f"model.{name}": value.detach().contiguous() for name, value in self.kept.items()}
        owners = self._owners
        for name, parameter in self.learning.items():
            for key, value in owners[parameter].state[parameter].items():
                tensors[f"optimizer.{name}.{key}"] = value.detach().contiguous()
        if self.sharded:
            self._save_shares(tensors, step)
            return
        with publish(self.folder / STATE_FILE) as path:
            save_file(tensors, path, metadata={_STEP: str(step)})
        for _, old in _shared_states(self.folder):
            shutil.rmtree(old, ignore_errors=True)

    def restore(self) -> int:
        """Take over the last state, whoever wrote it; returns its step, 0 where there is none.

        Raises TrainingError where it is another run's.
        """
        path, step = self.folder / STATE_FILE, -1
        if path.exists():
            with safe_open(path, framework="pt") as file:
                step = int(file.metadata()[_STEP])
        shared = max(_shared_states(self.folder), default=None)
        if shared is not None and shared[0] > step:
            return self._restore_shares(shared[1])
        if step < 0:
            return 0
        if self.sharded:
            self._restore_shares(self.folder)
        else:
            self._restore_file(path)
        return step

    def _restore_file(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            self._check(path, {name: file.get_slice(name).get_shape() for name in names})
            for name, target in self.kept.items():
                target.data.copy_(file.get_tensor(f"model.{name}"))
            owners = self._owners
            for name, parameter in self.learning.items():
                prefix = f"optimizer.{name}."
                state = {key: file.get_tensor(prefix + key) for key in _names_of(names, prefix)}
                if state:
                    owners[parameter].state[parameter] = {
                        key: value if value.ndim == 0 else value.to(parameter.device) for key, value in state.items()
                    }

    def _save_shares(self, tensors: dict[str, Tensor], step: int) -> None:
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
        from torch.distributed.checkpoint.state_dict_saver import save

        target = self.folder / f"state-{step:09d}"
        part = self.folder / f".{target.name}.shares"
        if self.ranks.leads:
            for torn in self.folder.glob(".state-*.shares"):
                shutil.rmtree(torn, ignore_errors=True)
        self.ranks.wait()
        writer = HuggingFaceStorageWriter(str(part), save_distributed=True)
        save({**tensors, _STEP: torch.tensor(step)}, storage_writer=writer)
        if self.ranks.leads:
            with publish(target, replace_folder=True) as fresh:
                os.rename(part, fresh)
            (self.folder / STATE_FILE).unlink(missing_ok=True)
            for old_step, old in _shared_states(self.folder):
                if old_step != step:
                    shutil.rmtree(old, ignore_errors=True)
        self.ranks.wait()

    def _restore_shares(self, folder: Path) -> int:
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
        from torch.distributed.checkpoint.metadata import TensorStorageMetadata
        from torch.distributed.checkpoint.state_dict_loader import load

        reader = HuggingFaceStorageReader(str(folder))
        found = reader.read_metadata().state_dict_metadata.items()
        stored = {name: tuple(tensor.size) for name, tensor in found if isinstance(tensor, TensorStorageMetadata)}
        self._check(folder, stored)
        wanted = {f"model.{name}": value.detach() for name, value in self.kept.items()}
        owners = self._owners
        for name, parameter in self.learning.items():
            prefix = f"optimizer.{name}."
            state = {
                # What has the parameter's shape is shared out as the parameter is; the rest counts steps.
                key: torch.zeros_like(parameter) if stored[prefix + key] == parameter.shape else torch.zeros(())
                for key in sorted(_names_of(stored, prefix))
            }
            if state:
                owners[parameter].state[parameter] = state
                wanted |= {prefix + key: value.detach() for key, value in state.items()}
        step = torch.zeros((), dtype=torch.int64)
        if _STEP in stored:
            wanted[_STEP] = step
        load(wanted, storage_reader=reader, no_dist=not self.sharded)
        return int(step)

    def _check(self, path: Path, stored: Mapping[str, Sequence[int]]) -> None:
        if _names_of(stored, "model.") != set(self.kept):
            raise TrainingError(f"{path} was written by another run: its weights have other names; use a new folder")
        for name, target in self.kept.items():
            if tuple(shape := stored[f"model.{name}"]) != tuple(target.shape):
                raise TrainingError(f"{path}: {name} is {tuple(shape)}, this run needs {tuple(target.shape)}")

    @property
    def _owners(self) -> dict[nn.Parameter, torch.optim.Optimizer]:
        """Which optimizer turns a parameter."""
        groups = ((optimizer, group) for optimizer in self.optimizers for group in optimizer.param_groups)
        return {parameter: optimizer for optimizer, group in groups for parameter in group["params"]}


def trained_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a run's last checkpoint, by their names in the objective's module."""
    path = folder / STATE_FILE
    if not path.exists():
        raise TrainingError(f"{folder} holds no training state: run that stage first")
    with safe_open(path, framework="pt") as file:
        return {name[6:]: file.get_tensor(name) for name in file.keys() if name.startswith("model.")}


def own_state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, a shared one once."""
    seen: dict[int, str] = {}
    state = {}
    for name, value in module.state_dict().items():
        if seen.setdefault(value.data_ptr(), name) == name:
            state[name] = value
    return state


def _shared_states(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in folder.glob("state-*"):
        if (match := _SHARDED.fullmatch(path.name)) and path.is_dir():
            yield int(match[1]), path


def _names_of(names: Iterable[str], prefix: str) -> set[str]:
    """The names that begin with a prefix, without it."""
    return {name[len(prefix) :] for name in names if name.startswith(prefix)}
