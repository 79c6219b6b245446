"""Foreign weight names and ours: one table a layout, read in both directions.

A layout's table lists modules (`*` stands for the number of a layer) beside what that layout calls them. Several of
ours may share one foreign tensor: they are stacked in it by rows, in the order of the table (Phi-3's fused ones).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

Layout = Mapping[str, str]
Family = Literal["llama", "mistral", "phi3", "qwen2"]

_HUGGING_FACE: Layout = {
    "vision.patch": "vision_tower.vision_model.embeddings.patch_embedding",
    "vision.class_token": "vision_tower.vision_model.embeddings.class_embedding",
    "vision.position": "vision_tower.vision_model.embeddings.position_embedding.weight",
    # The missing letter is the format's own.
    "vision.norm_pre": "vision_tower.vision_model.pre_layrnorm",
    "vision.norm_post": "vision_tower.vision_model.post_layernorm",
    "vision.blocks.*.norm1": "vision_tower.vision_model.encoder.layers.*.layer_norm1",
    "vision.blocks.*.norm2": "vision_tower.vision_model.encoder.layers.*.layer_norm2",
    "vision.blocks.*.attention.q": "vision_tower.vision_model.encoder.layers.*.self_attn.q_proj",
    "vision.blocks.*.attention.k": "vision_tower.vision_model.encoder.layers.*.self_attn.k_proj",
    "vision.blocks.*.attention.v": "vision_tower.vision_model.encoder.layers.*.self_attn.v_proj",
    "vision.blocks.*.attention.out": "vision_tower.vision_model.encoder.layers.*.self_attn.out_proj",
    "vision.blocks.*.mlp.up": "vision_tower.vision_model.encoder.layers.*.mlp.fc1",
    "vision.blocks.*.mlp.down": "vision_tower.vision_model.encoder.layers.*.mlp.fc2",
    "projector.linear_1": "multi_modal_projector.linear_1",
    "projector.linear_2": "multi_modal_projector.linear_2",
    "newline": "image_newline",
    "language.embed": "language_model.model.embed_tokens",
    "language.norm": "language_model.model.norm",
    "language.head": "language_model.lm_head",
    "language.blocks.*.norm1": "language_model.model.layers.*.input_layernorm",
    "language.blocks.*.norm2": "language_model.model.layers.*.post_attention_layernorm",
    "language.blocks.*.attention.q": "language_model.model.layers.*.self_attn.q_proj",
    "language.blocks.*.attention.k": "language_model.model.layers.*.self_attn.k_proj",
    "language.blocks.*.attention.v": "language_model.model.layers.*.self_attn.v_proj",
    "language.blocks.*.attention.out": "language_model.model.layers.*.self_attn.o_proj",
    "language.blocks.*.mlp.gate": "language_model.model.layers.*.mlp.gate_proj",
    "language.blocks.*.mlp.up": "language_model.model.layers.*.mlp.up_proj",
    "language.blocks.*.mlp.down": "language_model.model.layers.*.mlp.down_proj",
}
_HUGGING_FACE_PHI3: Layout = {
    **_HUGGING_FACE,
    **{
        f"language.blocks.*.attention.{part}": "language_model.model.layers.*.self_attn.qkv_proj"
        for part in ("q", "k", "v")
    },
    **{f"language.blocks.*.mlp.{part}": "language_model.model.layers.*.mlp.gate_up_proj" for part in ("gate", "up")},
}

_GGUF: Layout = {
    "vision.patch": "v.patch_embd",
    "vision.class_token": "v.class_embd",
    "vision.position": "v.position_embd.weight",
    "vision.norm_pre": "v.pre_ln",
    "vision.norm_post": "v.post_ln",
    "vision.blocks.*.norm1": "v.blk.*.ln1",
    "vision.blocks.*.norm2": "v.blk.*.ln2",
    "vision.blocks.*.attention.q": "v.blk.*.attn_q",
    "vision.blocks.*.attention.k": "v.blk.*.attn_k",
    "vision.blocks.*.attention.v": "v.blk.*.attn_v",
    "vision.blocks.*.attention.out": "v.blk.*.attn_out",
    "vision.blocks.*.mlp.up": "v.blk.*.ffn_up",
    "vision.blocks.*.mlp.down": "v.blk.*.ffn_down",
    "projector.linear_1": "mm.0",
    "projector.linear_2": "mm.2",
    "newline": "model.image_newline",
    "language.embed": "token_embd",
    "language.norm": "output_norm",
    "language.head": "output",
    "language.blocks.*.norm1": "blk.*.attn_norm",
    "language.blocks.*.norm2": "blk.*.ffn_norm",
    "language.blocks.*.attention.q": "blk.*.attn_q",
    "language.blocks.*.attention.k": "blk.*.attn_k",
    "language.blocks.*.attention.v": "blk.*.attn_v",
    "language.blocks.*.attention.out": "blk.*.attn_output",
    "language.blocks.*.mlp.gate": "blk.*.ffn_gate",
    "language.blocks.*.mlp.up": "blk.*.ffn_up",
    "language.blocks.*.mlp.down": "blk.*.ffn_down",
}
_GGUF_PHI3: Layout = {
    **_GGUF,
    **{f"language.blocks.*.attention.{part}": "blk.*.attn_qkv" for part in ("q", "k", "v")},
    **{f"language.blocks.*.mlp.{part}": "blk.*.ffn_up" for part in ("gate", "up")},
}


def hugging_face(family: Family) -> Layout:
    """What transformers calls our modules, in the spelling of the first `llava-hf` files."""
    return _HUGGING_FACE_PHI3 if family == "phi3" else _HUGGING_FACE


def gguf(family: Family) -> Layout:
    """What llama.cpp calls our modules: tower and projector stand in the mmproj file, the rest in the model's."""
    return _GGUF_PHI3 if family == "phi3" else _GGUF


def tensors_of(layout: Layout, ours: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """For each foreign tensor, those of our parameters that lie in it, stacked by rows."""
    found: dict[str, tuple[str, ...]] = {}
    for name in ours:
        foreign = _foreign(layout, name)
        found[foreign] = (*found.get(foreign, ()), name)
    return found


def _foreign(layout: Layout, name: str) -> str:
    number = re.search(r"\.(\d+)\.", name)
    starred = re.sub(r"\.\d+\.", ".*.", name)
    if starred in layout:
        foreign = layout[starred]
    else:
        module, _, kind = starred.rpartition(".")
        foreign = f"{layout[module]}.{kind}"
    return foreign.replace("*", number[1]) if number else foreign


# Each part of a model has been written under several names; the first that fits is the one meant.
_SPELLINGS: tuple[tuple[str, str], ...] = (
    ("model.vision_tower.vision_tower.vision_model.", "vision_tower.vision_model."),
    ("model.vision_tower.vision_tower.", "vision_tower.vision_model."),
    ("model.vision_tower.vision_model.", "vision_tower.vision_model."),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("vision_tower.vision_model.", "vision_tower.vision_model."),
    ("vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.mm_projector.0.", "multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "multi_modal_projector.linear_2."),
    ("model.mm_projector.", "multi_modal_projector.linear_1."),
    ("mm_projector.0.", "multi_modal_projector.linear_1."),
    ("mm_projector.2.", "multi_modal_projector.linear_2."),
    ("mm_projector.", "multi_modal_projector.linear_1."),
    ("model.image_newline", "image_newline"),
    ("model.language_model.lm_head.", "language_model.lm_head."),
    ("model.language_model.", "language_model.model."),
    ("language_model.lm_head.", "language_model.lm_head."),
    ("language_model.model.", "language_model.model."),
    ("language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.", "language_model.model."),
)


def spelt_first(name: str) -> str:
    """A transformers name in whatever spelling, as the first `llava-hf` files would have it."""
    for spelling, first in _SPELLINGS:
        if name.startswith(spelling):
            return first + name.removeprefix(spelling)
    return name


# Tensors that real files carry and no model reads: tables that are computed anyway, and heads of towers
# that LLaVA does not use.
_UNREAD = re.compile(
    r".*\.rotary_emb\.inv_freq"
    r"|.*\.position_ids"
    r"|.*\.self_attn\.masked_bias"
    r"|vision_tower\.vision_model\.(head|text_model)\..*"
    r"|vision_tower\.vision_model\.(text_projection|visual_projection)\.weight"
    r"|vision_tower\.vision_model\.logit_(scale|bias)"
)


def is_unread(name: str) -> bool:
    """Whether a tensor, in the first spelling, is known to be of no use here."""
    return _UNREAD.fullmatch(name) is not None
