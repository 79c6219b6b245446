"""`mini`, the built-in model: what it is, and the four stages that make it from nothing.

tower     pictures and their words            -> a vision tower
language  English and the language of answers -> a decoder
align     captions                            -> the projector, all else frozen
tune      conversations about pictures        -> projector and decoder, the tower frozen
"""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import dataclass
from pathlib import Path

from lapilli.config import LlavaConfig, TextConfig, VisionConfig
from lapilli.training.recipe import LoopOptions, TowerOptions

STAGES = ("tower", "language", "align", "tune")
VOCABULARY_SIZE = 3072


@dataclass(frozen=True, kw_only=True)
class MiniRecipe:
    """Everything that decides what `mini` becomes; a run with the same recipe and data repeats it."""

    vision: VisionConfig = VisionConfig(
        family="siglip", hidden_size=256, intermediate_size=1024, num_layers=6, num_heads=4,
        image_size=128, patch_size=16, activation="gelu_tanh", norm_eps=1e-6,
    )  # fmt: skip
    tower: TowerOptions = TowerOptions()
    tower_loop: LoopOptions = LoopOptions(steps=4200, rate=1e-3, warmup=300, seed=1)
    language_loop: LoopOptions = LoopOptions(steps=1500, rate=2e-3, warmup=100, seed=2)
    align_loop: LoopOptions = LoopOptions(steps=400, rate=2e-3, warmup=50, seed=3, weight_decay=0.0)
    tune_loop: LoopOptions = LoopOptions(steps=4000, rate=1e-3, warmup=200, seed=4)

    def text(self, vocab_size: int, bos_id: int, eos_id: int) -> TextConfig:
        """The decoder, once the vocabulary is known."""
        return TextConfig(
            family="llama", vocab_size=vocab_size, hidden_size=256, intermediate_size=704, num_layers=4, num_heads=4,
            num_kv_heads=4, head_dim=64, norm_eps=1e-5, max_positions=2048, tie_embeddings=True,
            bos_id=bos_id, eos_ids=(eos_id,),
        )  # fmt: skip

    def llava(self, text: TextConfig, image_token_id: int) -> LlavaConfig:
        """The whole model: features of the tower's last block, a two-layer projector, the decoder."""
        return LlavaConfig(
            text=text, vision=self.vision, image_token_id=image_token_id, feature_layers=(-1,), drop_class_token=False
        )


def mini_names() -> list[str]:
    """The everyday things that `mini` knows by name."""
    text = (importlib.resources.files("lapilli") / "models" / "mini" / "names.json").read_text()
    return [str(name) for name in json.loads(text)]


def stage_folder(out: Path, stage: str) -> Path:
    """Where a stage keeps its state."""
    return out / stage
