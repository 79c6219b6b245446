"""Opening a GGUF model, with the mmproj file that gives it eyes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lapilli.checkpoints import names
from lapilli.checkpoints.generation import GenerationDefaults
from lapilli.checkpoints.ggml import TensorType
from lapilli.checkpoints.gguf import GGUFFile, GGUFTensor, read_gguf
from lapilli.checkpoints.gguf_decoder import ROPE_TENSORS, paired_heads, read_decoder, unpair_rows
from lapilli.checkpoints.gguf_tower import has_swapped_mlp, read_processor, read_tower
from lapilli.checkpoints.source import Source, usual_template
from lapilli.checkpoints.weights import Weight, constant, placed
from lapilli.config import LlavaConfig, TextConfig, VisionConfig
from lapilli.inputs.prompt import PromptBuilder
from lapilli.inputs.templates import ChatTemplate
from lapilli.inputs.tokenizer import Tokenizer

_DTYPES = {TensorType.F16: torch.float16, TensorType.BF16: torch.bfloat16}


def open_gguf(path: Path, projector: Path | None = None) -> Source:
    """Open a GGUF model, and its projector where it has one.

    Raises CheckpointError for files that are damaged or of a kind not known here, TokenizerError, TemplateError.
    """
    file = read_gguf(path)
    text = read_decoder(file)
    tokenizer = Tokenizer.from_gguf(file.metadata)
    template = ChatTemplate.from_gguf(file.metadata) or _usual_template(file, tokenizer, text)
    tensors = {name: _weight(file, tensor) for name, tensor in file.tensors.items() if name not in ROPE_TENSORS}
    config, processor = LlavaConfig(text=text, image_token_id=-1), None
    if projector is not None:
        eyes = read_gguf(projector)
        image_token = tokenizer.token_id("<image>")
        # A vocabulary without the placeholder still needs a number for it: the first that no token has.
        config = read_tower(eyes, text, text.vocab_size if image_token is None else image_token)
        assert config.vision is not None
        processor = read_processor(eyes, config)
        tensors |= _tower_weights(eyes, config.vision)
    where = path.name if projector is None else f"{path.name} with {projector.name}"
    weights = placed(tensors, names.gguf(text.family), config, where)
    return Source(
        config=config,
        weights={name: _unpaired(name, weight, text) for name, weight in weights.items()},
        prompts=PromptBuilder(config, tokenizer, processor, template),
        generation=GenerationDefaults(),
    )


def _tower_weights(file: GGUFFile, vision: VisionConfig) -> dict[str, Weight]:
    swapped = has_swapped_mlp(file, vision)
    found = {}
    for name, tensor in file.tensors.items():
        if swapped and ".ffn_up." in name:
            name = name.replace(".ffn_up.", ".ffn_down.")
        elif swapped:
            name = name.replace(".ffn_down.", ".ffn_up.")
        if name in ("mm.weight", "mm.bias"):
            name = name.replace("mm.", "mm.0.")
        found[name] = _weight(file, tensor)
    # LLaVA takes its features before the last norm, so that files leave it out.
    found.setdefault("v.post_ln.weight", constant((vision.hidden_size,), 1.0))
    found.setdefault("v.post_ln.bias", constant((vision.hidden_size,), 0.0))
    return found


def _weight(file: GGUFFile, tensor: GGUFTensor) -> Weight:
    """The file's own memory where torch has the type, else its blocks, or float32 made of them when it is read."""
    quantized = tensor.type.block_weights > 1 and len(tensor.shape) == 2
    return Weight(
        tensor.shape,
        _DTYPES.get(tensor.type, torch.float32),
        read=partial(_read, file, tensor),
        release=partial(file.release, tensor),
        type=tensor.type if quantized else None,
        packed=partial(_read_blocks, tensor) if quantized else None,
    )


def _read_blocks(tensor: GGUFTensor) -> Tensor:
    return torch.from_numpy(tensor.data).view(tensor.shape[0], -1)


def _read(file: GGUFFile, tensor: GGUFTensor) -> Tensor:
    if tensor.type in _DTYPES:
        return torch.from_numpy(tensor.data.view(np.int16)).view(_DTYPES[tensor.type]).view(tensor.shape)
    floats = torch.from_numpy(tensor.dequantize())
    if tensor.type != TensorType.F32:
        file.release(tensor)
    return floats


def _unpaired(name: str, weight: Weight, text: TextConfig) -> Weight:
    heads = paired_heads(name, text)
    return weight if heads is None else weight.reordered(lambda rows: unpair_rows(rows, heads))


def _usual_template(file: GGUFFile, tokenizer: Tokenizer, text: TextConfig) -> ChatTemplate:
    # GGUF writes Mistral as llama, so that only its name is left to tell.
    if "mistral" in file.text("general.name", "").lower():
        return ChatTemplate.built_in("mistral_instruct")
    return usual_template(tokenizer, text)
