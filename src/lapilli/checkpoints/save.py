"""Saving a model where others open it: as a `transformers` folder, or as GGUF for llama.cpp and Ollama."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor

from lapilli.checkpoints import names
from lapilli.checkpoints.ggml import TensorType
from lapilli.checkpoints.gguf import TensorSource, write_gguf
from lapilli.checkpoints.gguf_decoder import pair_rows, paired_heads, write_decoder
from lapilli.checkpoints.gguf_tower import write_tower
from lapilli.checkpoints.load import Checkpoint
from lapilli.checkpoints.mixture import Mixture
from lapilli.checkpoints.placeholder import with_placeholder
from lapilli.checkpoints.template import jinja_source
from lapilli.checkpoints.weights import Weight, weights_of
from lapilli.config import LlavaConfig
from lapilli.errors import InputError
from lapilli.ground.files import publish
from lapilli.inputs.processor import ImageProcessor
from lapilli.inputs.prompt import PromptBuilder

SHARD_BYTES = 4 << 30


def save_folder(
    checkpoint: Checkpoint,
    path: str | Path,
    dtype: torch.dtype | None = None,
    *,
    shard_bytes: int = SHARD_BYTES,
    replace: bool = False,
) -> None:
    """Save a folder that transformers opens: the `llava-hf` layout, or a decoder's own where there is no tower.

    Where `dtype` is None, the weights keep their type. No file of weights grows past `shard_bytes`, but for a single
    tensor. The folder is whole or not there; one that holds files is replaced only with `replace`.
    Raises InputError where `path` may not be replaced, OSError as the disk has it.
    """
    worded, prompts = with_placeholder(checkpoint), checkpoint.prompts
    config, tokenizer = worded.config, worded.tokenizer
    kind = dtype or checkpoint.model.dtype
    with publish(path, replace_folder=replace) as fresh:
        fresh.mkdir()
        _write_shards(fresh, _foreign(config, worded.weights, kind), shard_bytes)
        _write_json(fresh / "config.json", {**config.to_dict(), "dtype": str(kind).removeprefix("torch.")})
        generation = checkpoint.generation.to_dict(
            bos_id=tokenizer.bos_id, eos_ids=tokenizer.eos_ids, pad_id=tokenizer.pad_id
        )
        _write_json(fresh / "generation_config.json", generation)
        tokenizer.save(fresh, image_token=worded.image_token)
        (fresh / "chat_template.jinja").write_text(jinja_source(prompts.chat_template), encoding="utf-8")
        if prompts.image_processor is not None:
            _write_processors(fresh, config, prompts.image_processor, worded.image_token)


def _write_processors(folder: Path, config: LlavaConfig, processor: ImageProcessor, image_token: str | None) -> None:
    assert config.vision is not None
    name = "LlavaNextProcessor" if config.is_next else "LlavaProcessor"
    _write_json(folder / "preprocessor_config.json", {**processor.to_dict(), "processor_class": name})
    values = {
        "processor_class": name,
        "image_token": image_token,
        "num_additional_image_tokens": int(config.vision.has_class_token),
        "patch_size": config.vision.patch_size,
        "vision_feature_select_strategy": "default" if config.drop_class_token else "full",
    }
    _write_json(folder / "processor_config.json", values)


def _foreign(config: LlavaConfig, weights: Mapping[str, Weight], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """The tensors as transformers names them, fused where it has them fused."""
    layout = names.hugging_face(config.text.family)
    for foreign, ours in names.tensors_of(layout, weights).items():
        tensor = _joined([weights[name].read() for name in ours])
        alone = foreign.removeprefix("language_model.") if config.vision is None else foreign
        yield alone, tensor.detach().to("cpu", dtype).contiguous()
    if config.projector == "linear" and config.vision is not None:
        # transformers has no single layer: the second is an identity, and its activation too.
        size = config.text.hidden_size
        yield f"{layout['projector.linear_2']}.weight", torch.eye(size, dtype=dtype)
        if config.projector_bias:
            yield f"{layout['projector.linear_2']}.bias", torch.zeros(size, dtype=dtype)


def _write_shards(folder: Path, tensors: Iterator[tuple[str, Tensor]], limit: int) -> None:
    """`model.safetensors`, or numbered shards and the index that says which tensor is where."""
    shards: list[list[str]] = []
    shard: dict[str, Tensor] = {}
    total = size = 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > limit:
            shards.append(_write_shard(folder, len(shards), shard))
            shard, size = {}, 0
        shard[name] = tensor
        size, total = size + tensor.nbytes, total + tensor.nbytes
    shards.append(_write_shard(folder, len(shards), shard))
    if len(shards) == 1:
        (folder / _shard_name(0)).rename(folder / "model.safetensors")
        return
    places: dict[str, str] = {}
    for number, held in enumerate(shards):
        final = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / _shard_name(number)).rename(folder / final)
        places |= dict.fromkeys(held, final)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    _write_json(folder / "model.safetensors.index.json", index)


def _write_shard(folder: Path, number: int, tensors: dict[str, Tensor]) -> list[str]:
    save_file(tensors, folder / _shard_name(number), metadata={"format": "pt"})
    return list(tensors)


def _shard_name(number: int) -> str:
    return f"shard-{number}.safetensors"


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_gguf(
    checkpoint: Checkpoint,
    model_path: str | Path,
    mmproj_path: str | Path | None = None,
    type: TensorType | Mixture | str = TensorType.F16,
) -> None:
    """Save the decoder, and tower and projector beside it, as llama.cpp and Ollama open them.

    `type` is that of the decoder's matrices, one with smaller blocks where their rows are no whole blocks of it; norms
    and biases are F32, tower and projector of a quantized model F16. A `Mixture` says all of this by itself. Raises
    InputError where a model that sees is given no `mmproj_path`, CheckpointError for one that llama.cpp would compute
    otherwise, or that GGUF has no words for.
    """
    mixture = type if isinstance(type, Mixture) else Mixture.pure(TensorType(type))
    if (checkpoint.config.vision is None) != (mmproj_path is None):
        raise InputError(
            "mmproj_path is the file for tower and projector: a model that sees needs it, others have none"
        )
    model, eyes = gguf_contents(checkpoint.config, checkpoint.prompts, weights_of(checkpoint.model), mixture)
    if eyes is not None and mmproj_path is not None:
        write_gguf(mmproj_path, eyes.metadata, eyes.tensors)
    write_gguf(model_path, model.metadata, model.tensors)


@dataclasses.dataclass(frozen=True)
class Contents:
    """What stands in a GGUF file; the tensors are read, and quantized, when their turn to be written comes."""

    metadata: dict[str, object]
    tensors: list[TensorSource]


def gguf_contents(
    config: LlavaConfig, prompts: PromptBuilder, weights: Mapping[str, Weight], mixture: Mixture
) -> tuple[Contents, Contents | None]:
    """The decoder's file, and that of tower and projector where there are some.

    Raises CheckpointError for a model that llama.cpp would compute otherwise, or that GGUF has no words for.
    """
    config, weights = _with_one_layer(config, weights)
    metadata, factors = write_decoder(config.text)
    metadata |= _general(mixture, mixture.type) | prompts.tokenizer.to_gguf(rows=config.text.vocab_size)
    metadata["tokenizer.chat_template"] = jinja_source(prompts.chat_template)
    decoder = {name: weight for name, weight in weights.items() if name.startswith("language.")}
    turns = [TensorSource.of(name, array, TensorType.F32) for name, array in factors.items()]
    model = Contents(metadata, [*turns, *_sources(config, decoder, mixture)])
    if config.vision is None:
        return model, None
    assert prompts.image_processor is not None
    # llama.cpp would apply a last norm, which LLaVA does not.
    eyes = {name: weight for name, weight in weights.items() if name not in decoder and ".norm_post." not in name}
    tower = write_tower(config, config.vision, prompts.image_processor)
    tower |= _general(Mixture.pure(mixture.tower), mixture.tower)
    return model, Contents(tower, _sources(config, eyes, mixture))


def _general(mixture: Mixture, type: TensorType) -> dict[str, object]:
    values: dict[str, object] = {"general.file_type": mixture.file_type}
    return values if type.block_weights == 1 else values | {"general.quantization_version": 2}


def _sources(config: LlavaConfig, weights: Mapping[str, Weight], mixture: Mixture) -> list[TensorSource]:
    sources = []
    vision = config.vision
    square = vision is not None and vision.hidden_size == vision.intermediate_size
    for foreign, ours in names.tensors_of(names.gguf(config.text.family), weights).items():
        if square and foreign.startswith("v.blk."):
            # llama.cpp takes square ones for the first converter's, which had up and down the wrong way round.
            swapped = {"ffn_up": "ffn_down", "ffn_down": "ffn_up"}
            foreign = ".".join(swapped.get(part, part) for part in foreign.split("."))
        parts = [_paired(name, weights[name], config) for name in ours]
        shape = (sum(weights[name].shape[0] for name in ours), *weights[ours[0]].shape[1:])
        type = mixture.type_of(ours, shape, config.text)
        sources.append(TensorSource(foreign, shape, type, _reader(parts, type)))
    return sources


def _paired(name: str, weight: Weight, config: LlavaConfig) -> Weight:
    heads = paired_heads(name, config.text)
    return weight if heads is None else weight.reordered(lambda rows: pair_rows(rows, heads))


def _reader(parts: list[Weight], type: TensorType) -> Callable[[], npt.NDArray[Any]]:
    """The numbers of the parts under each other; the blocks themselves where all are of that type already."""

    def read() -> npt.NDArray[Any]:
        packed = [part.packed for part in parts if part.packed is not None and part.type is type]
        if len(packed) == len(parts):
            array: npt.NDArray[Any] = _joined([read() for read in packed]).numpy()
            return array.reshape(-1)
        array = _joined([part.read().to("cpu", torch.float32) for part in parts]).numpy()
        for part in parts:
            part.release()
        return array

    return read


def _joined(tensors: list[Tensor]) -> Tensor:
    return torch.cat(tensors) if len(tensors) > 1 else tensors[0]


def _with_one_layer(config: LlavaConfig, weights: Mapping[str, Weight]) -> tuple[LlavaConfig, Mapping[str, Weight]]:
    """The projector as one layer again, where the second was only transformers' way to write that."""
    if "projector.linear_2.weight" not in weights or config.projector_activation != "identity":
        return config, weights
    second = weights["projector.linear_2.weight"].read()
    bias = weights["projector.linear_2.bias"].read() if "projector.linear_2.bias" in weights else None
    if not torch.equal(second, torch.eye(len(second)).to(second)) or (bias is not None and bool(bias.any())):
        return config, weights
    config = dataclasses.replace(config, projector="linear", projector_activation="gelu")
    return config, {name: value for name, value in weights.items() if not name.startswith("projector.linear_2.")}
