"""What is looked at before a file may become part of a model: enough that it can be opened, without reading weights."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lapilli.checkpoints.gguf import GGUFFile, read_gguf
from lapilli.checkpoints.names import gguf
from lapilli.checkpoints.objects import read_object
from lapilli.checkpoints.safetensors import check_header
from lapilli.errors import CheckpointError

Kind = Literal["model", "projector"]
MODEL_FILE: Kind = "model"

_DECODERS: dict[str, Literal["llama", "phi3", "qwen2"]] = {"llama": "llama", "phi3": "phi3", "qwen2": "qwen2"}
_LARGEST = 1 << 24
_DECODER_SIZES = ("embedding_length", "block_count", "feed_forward_length", "attention.head_count", "context_length")
_TOWER_SIZES = (
    "embedding_length", "block_count", "feed_forward_length", "attention.head_count", "image_size", "patch_size",
)  # fmt: skip


def check_gguf(path: Path) -> Kind:
    """What a GGUF file is part of. Raises CheckpointError that names the key or the tensor that is missing or wrong."""
    with read_gguf(path) as file:
        arch = file.text("general.architecture")
        if file.text("general.type", "model") == "adapter":
            raise CheckpointError(
                f"{file.name}: is an adapter in GGUF; adapters are read in PEFT's layout: adapter_config.json "
                "and adapter_model.safetensors"
            )
        if arch == "clip":
            _check_tower(file)
            return "projector"
        if arch not in _DECODERS:
            raise CheckpointError(
                f"{file.name}: architecture {arch[:40]!r} is not known here; read are {', '.join(_DECODERS)}"
            )
        _check_decoder(file, arch)
        return "model"


def check_adapter(folder: Path) -> None:
    """Look at a LoRA folder in PEFT's layout. Raises CheckpointError."""
    if not read_object(folder / "adapter_config.json"):
        raise CheckpointError(f"{folder.name}: an adapter needs adapter_config.json and adapter_model.safetensors")
    check_header(folder / "adapter_model.safetensors")


def _check_decoder(file: GGUFFile, arch: str) -> None:
    sizes = {key: file.integer(f"{arch}.{key}", minimum=1, maximum=_LARGEST) for key in _DECODER_SIZES}
    file.integer(f"{arch}.attention.head_count_kv", sizes["attention.head_count"], minimum=1, maximum=_LARGEST)
    file.number(f"{arch}.attention.layer_norm_rms_epsilon")
    file.text("tokenizer.ggml.model")
    if not file.texts("tokenizer.ggml.tokens"):
        raise CheckpointError(f"{file.name}: tokenizer.ggml.tokens has 0 values, must have at least 1")
    embeddings = file.tensor("token_embd.weight")
    if embeddings.shape[1:] != (sizes["embedding_length"],):
        raise CheckpointError(
            f"{file.name}: tensor token_embd.weight has shape {embeddings.shape}, its rows must have "
            f"{sizes['embedding_length']}"
        )
    layout = gguf(_DECODERS[arch])
    _require(file, "output_norm", "weight")
    _require_blocks(
        file, sizes["block_count"], {layout[ours] for ours in layout if ours.startswith("language.blocks.")}
    )


def _check_tower(file: GGUFFile) -> None:
    kind = file.text("clip.projector_type", "mlp")
    if kind != "mlp" or not file.flag("clip.has_vision_encoder", True):
        raise CheckpointError(f"{file.name}: projector {kind[:40]!r} is not known here; read is mlp, for pictures")
    sizes = {key: file.integer(f"clip.vision.{key}", minimum=1, maximum=_LARGEST) for key in _TOWER_SIZES}
    file.number("clip.vision.attention.layer_norm_epsilon")
    for key in ("image_mean", "image_std"):
        file.numbers(f"clip.vision.{key}", 3)
    if not any(name in file.tensors for name in ("mm.0.weight", "mm.weight")):
        raise CheckpointError(f"{file.name}: tensor mm.0.weight is missing")
    for module in ("v.patch_embd", "v.position_embd"):
        _require(file, module, "weight")
    layout = gguf("llama")
    modules = {layout[ours] for ours in layout if ours.startswith("vision.blocks.")}
    _require_blocks(file, sizes["block_count"], modules)


def _require_blocks(file: GGUFFile, count: int, modules: set[str]) -> None:
    if count > len(file.tensors):
        raise CheckpointError(f"{file.name}: claims {count} blocks, it has {len(file.tensors)} tensors")
    for number in range(count):
        for module in sorted(modules):
            _require(file, module.replace("*", str(number)), "weight")


def _require(file: GGUFFile, module: str, kind: str) -> None:
    file.tensor(f"{module}.{kind}")
