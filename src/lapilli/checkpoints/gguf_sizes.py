"""Sizes of decoders and towers under the names that GGUF has for them."""

from __future__ import annotations

from lapilli.config import TextConfig, VisionConfig


def decoder_sizes(config: TextConfig, arch: str) -> dict[str, object]:
    """What is counted or measured of a decoder; `arch` is what GGUF calls its architecture."""
    return {
        f"{arch}.block_count": config.num_layers,
        f"{arch}.context_length": config.max_positions,
        f"{arch}.embedding_length": config.hidden_size,
        f"{arch}.feed_forward_length": config.intermediate_size,
        f"{arch}.attention.head_count": config.num_heads,
        f"{arch}.attention.head_count_kv": config.num_kv_heads,
        f"{arch}.attention.key_length": config.head_dim,
        f"{arch}.attention.value_length": config.head_dim,
        f"{arch}.attention.layer_norm_rms_epsilon": config.norm_eps,
        f"{arch}.rope.dimension_count": config.rotary_dim,
        f"{arch}.rope.freq_base": config.rope.theta,
        f"{arch}.vocab_size": config.vocab_size,
    }


def tower_sizes(config: VisionConfig) -> dict[str, object]:
    """What is counted or measured of a tower."""
    return {
        "clip.vision.image_size": config.image_size,
        "clip.vision.patch_size": config.patch_size,
        "clip.vision.embedding_length": config.hidden_size,
        "clip.vision.feed_forward_length": config.intermediate_size,
        "clip.vision.block_count": config.num_layers,
        "clip.vision.attention.head_count": config.num_heads,
        "clip.vision.attention.layer_norm_epsilon": config.norm_eps,
    }
