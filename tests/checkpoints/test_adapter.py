"""LoRA adapters made by PEFT, merged here as PEFT merges them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from lapilli.checkpoints.load import Checkpoint, load_checkpoint
from lapilli.checkpoints.save import save_gguf
from lapilli.errors import CheckpointError

# PEFT and transformers warn each other, and of what is tested here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]

DECODER = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "decoder": (tiny.text_config("llama"), {"target_modules": DECODER}),
    "some-layers": (tiny.text_config("llama"), {"target_modules": ["q_proj"], "layers_to_transform": [1]}),
    "rslora": (tiny.text_config("qwen2"), {"target_modules": ["q_proj", "down_proj"], "use_rslora": True}),
    "patterns": (
        tiny.text_config("mistral"),
        {"target_modules": DECODER, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 3}},
    ),
    "embeddings": (
        tiny.text_config("llama"), {"target_modules": ["embed_tokens", "lm_head"], "modules_to_save": ["norm"]},
    ),
    "tied": (tiny.text_config("llama", tie_word_embeddings=True), {"target_modules": ["embed_tokens", "v_proj"]}),
    "biases": (
        tiny.text_config("llama", attention_bias=True),
        {"target_modules": ["q_proj", "v_proj"], "lora_bias": True, "fan_in_fan_out": False},
    ),
    "trained-biases": (tiny.text_config("qwen2"), {"target_modules": ["q_proj"], "bias": "all"}),
    "fused": (tiny.text_config("phi3"), {"target_modules": ["qkv_proj", "gate_up_proj", "o_proj"]}),
    "llava": (
        tiny.llava_config(tiny.vision_config("clip")),
        {
            "target_modules": ["q_proj", "fc1", "linear_1", "patch_embedding", "gate_proj"],
            "modules_to_save": ["linear_2"],
        },
    ),
}  # fmt: skip


def make_adapter(config: Any, folder: Path, **options: Any) -> Any:
    """A model in `folder/base`, an adapter with weights that matter in `folder/lora`; returns PEFT's merged model."""
    base = tiny.random_model(config)
    tiny.save(base, folder / "base")
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=6, **options))
    torch.manual_seed(7)
    with torch.no_grad():
        for _, value in sorted((name, value) for name, value in model.named_parameters() if value.requires_grad):
            value.add_(torch.randn_like(value) * 0.2)
    model.save_pretrained(folder / "lora")
    return model.merge_and_unload().eval()


@torch.inference_mode()
def logits(checkpoint: Checkpoint, pixels: Tensor | None = None) -> Tensor:
    model, config = checkpoint.model, checkpoint.config
    count = 0 if pixels is None else config.image_tokens(28, 28)
    ids = torch.tensor([[*range(5, 30), *[config.image_token_id] * count, 7]])
    embeds = model.embed(ids, model.encode_images([] if pixels is None else [(pixels, (28, 28))]))
    return model.logits(model(embeds, torch.arange(ids.shape[1])[None]))


@torch.inference_mode()
def their_logits(model: Any, pixels: Tensor | None = None, count: int = 0) -> Tensor:
    ids = torch.tensor([[*range(5, 30), *[tiny.IMAGE_TOKEN] * count, 7]])
    return model(ids, **({} if pixels is None else {"pixel_values": pixels})).logits


@pytest.mark.parametrize("name", KINDS)
def test_an_adapter_is_merged_as_peft_does(name: str, tmp_path: Path) -> None:
    config, options = KINDS[name]
    theirs = make_adapter(config, tmp_path, **options)
    checkpoint = load_checkpoint(tmp_path / "base", adapter=tmp_path / "lora")
    seen = name == "llava"
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(2)) if seen else None
    expected = their_logits(theirs, pixels, checkpoint.config.image_tokens(28, 28) if seen else 0)
    assert float((logits(checkpoint, pixels) - expected).abs().max()) <= 1e-4
    plain = logits(load_checkpoint(tmp_path / "base"), pixels)
    assert float((plain - expected).abs().max()) > 0.1, "the adapter changes nothing, the test says nothing"


def test_an_adapter_fits_the_same_model_as_gguf(tmp_path: Path) -> None:
    theirs = make_adapter(tiny.text_config("llama"), tmp_path, target_modules=DECODER)
    save_gguf(load_checkpoint(tmp_path / "base"), tmp_path / "base.gguf", type="F32")
    checkpoint = load_checkpoint(tmp_path / "base.gguf", adapter=tmp_path / "lora")
    assert float((logits(checkpoint) - their_logits(theirs)).abs().max()) <= 1e-4


def test_merging_is_done_in_float32(tmp_path: Path) -> None:
    """A half-precision model that is asked for in float32 is the exact sum, not one rounded on the way."""
    make_adapter(tiny.text_config("llama"), tmp_path, target_modules=["q_proj"])
    base = load_checkpoint(tmp_path / "base", dtype=torch.bfloat16).model.state_dict()
    tiny.save(tiny.random_model(tiny.text_config("llama")).bfloat16(), tmp_path / "base")
    tensors = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    a, b = (
        tensors[f"base_model.model.model.layers.0.self_attn.q_proj.lora_{part}.weight"].float() for part in ("A", "B")
    )
    exact = base["language.blocks.0.attention.q.weight"].float() + 6 / 4 * (b @ a)
    merged = load_checkpoint(tmp_path / "base", adapter=tmp_path / "lora", dtype=torch.float32).model
    assert torch.allclose(merged.language.blocks[0].attention.q.weight, exact, atol=1e-6)
    kept = load_checkpoint(tmp_path / "base", adapter=tmp_path / "lora").model
    assert kept.dtype == torch.bfloat16
    assert torch.equal(kept.language.blocks[0].attention.q.weight, exact.bfloat16())


def change_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        values = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**values, **changes}))

    return change


def change_tensors(**changes: Tensor | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        tensors = {**load_file(path), **{f"base_model.model.model.{key}": value for key, value in changes.items()}}
        save_file({name: value for name, value in tensors.items() if value is not None}, path)

    return change


QUERY = "layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_config(use_dora=True), "DoRA"),
        (change_config(peft_type="IA3"), "peft_type 'IA3' is not LORA"),
        (change_config(init_lora_weights="pissa"), "init_lora_weights 'pissa' changes the base model"),
        (change_config(layer_replication=[[0, 1]]), "layer_replication: not known here"),
        (change_config(lora_alpha="six"), "lora_alpha must be a finite number"),
        (change_config(alpha_pattern={"(a+)+$": 1}), "alpha_pattern must go from plain module names"),
        (change_tensors(**{f"{QUERY}.lora_magnitude_vector": torch.zeros(64)}), "DoRA"),
        (change_tensors(**{f"{QUERY}.lora_B.weight": None}), "q_proj has lora_A.weight: not a LoRA pair"),
        (change_tensors(**{f"{QUERY}.lora_B.weight": torch.zeros(64, 5)}), "their ranks differ"),
        (
            change_tensors(**{f"{QUERY}.lora_B.weight": torch.zeros(65, 4)}),
            r"q_proj.weight has shape \(65, 64\), the model's has \(64, 64\)",
        ),
        (
            change_tensors(**{"layers.7.mlp.up_proj.lora_A.weight": torch.zeros(4, 64),
                              "layers.7.mlp.up_proj.lora_B.weight": torch.zeros(96, 4)}),
            "layers.7.mlp.up_proj.weight has no place in this model",
        ),
        (change_tensors(**{"norm.weight": torch.zeros(63)}), r"norm.weight has shape \(63,\), the model's has \(64,\)"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "holds no adapter_config.json"),
        (lambda folder: (folder / "non_lora_trainables.bin").write_bytes(b""), "is a pickle"),
        (
            lambda folder: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"),
            "only safetensors and GGUF are read; pickle files can run code",
        ),
    ],
)  # fmt: skip
def test_adapters_that_do_not_fit_are_refused(change: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    make_adapter(tiny.text_config("llama"), tmp_path, target_modules=["q_proj"])
    change(tmp_path / "lora")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "base", adapter=tmp_path / "lora")


def test_a_head_apart_from_tied_embeddings_is_refused(tmp_path: Path) -> None:
    make_adapter(tiny.text_config("llama", tie_word_embeddings=True), tmp_path, target_modules=["q_proj"])
    embeddings = load_checkpoint(tmp_path / "base").model.language.embed.weight.detach()
    path = tmp_path / "lora" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "base_model.model.lm_head.weight": embeddings.clone()}, path)
    load_checkpoint(tmp_path / "base", adapter=tmp_path / "lora")
    save_file({**tensors, "base_model.model.lm_head.weight": embeddings + 1}, path)
    with pytest.raises(CheckpointError, match="to which this model's head is tied"):
        load_checkpoint(tmp_path / "base", adapter=tmp_path / "lora")
