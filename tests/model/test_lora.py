"""Adapters over shared weights: what is added equals what merging adds, and who has none is not touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from lapilli.checkpoints.adapter import read_adapter
from lapilli.checkpoints.load import Checkpoint, load_checkpoint
from lapilli.errors import CheckpointError
from lapilli.model.llava import Llava
from lapilli.model.lora import Adaptable, Adapter

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]

DECODER = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "decoder": (tiny.text_config("llama"), {"target_modules": DECODER}),
    "some-layers": (tiny.text_config("llama"), {"target_modules": ["q_proj"], "layers_to_transform": [1]}),
    "head": (tiny.text_config("mistral"), {"target_modules": ["lm_head", "up_proj"], "use_rslora": True}),
    "biases": (
        tiny.text_config("llama", attention_bias=True), {"target_modules": ["q_proj", "o_proj"], "lora_bias": True},
    ),
    "fused": (tiny.text_config("phi3"), {"target_modules": ["qkv_proj", "gate_up_proj", "o_proj"]}),
    "llava": (tiny.llava_config(tiny.vision_config("clip")), {"target_modules": r".*language_model.*\.(q|v)_proj"}),
}  # fmt: skip


def make_adapter(base: Path, config: Any, folder: Path, seed: int = 7, **options: Any) -> None:
    """A model in `base`, the same each time, and an adapter of it in `folder` with weights that matter."""
    model = tiny.random_model(config)
    if not base.exists():
        tiny.save(model, base)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, **options))
    torch.manual_seed(seed)
    with torch.no_grad():
        for _, value in sorted((name, value) for name, value in adapted.named_parameters() if value.requires_grad):
            value.add_(torch.randn_like(value) * 0.2)
    adapted.save_pretrained(folder)


@torch.inference_mode()
def logits(model: Llava, rows: int = 1, seed: int = 0) -> Tensor:
    """Scores after each of 25 tokens of so many sequences."""
    ids = torch.randint(5, 250, (rows, 25), generator=torch.Generator().manual_seed(seed))
    return model.logits(model(model.language.embed(ids), torch.arange(25)[None].expand(rows, -1)))


def state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in checkpoint.model.state_dict().items()}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_added_is_what_merging_adds(name: str, tmp_path: Path) -> None:
    config, options = KINDS[name]
    make_adapter(tmp_path / "base", config, tmp_path / "lora", **options)
    merged = load_checkpoint(tmp_path / "base", adapter=tmp_path / "lora")
    base = load_checkpoint(tmp_path / "base")
    before, plain = state(base), logits(base.model)
    adapted = logits(Adaptable(base.model).all(read_adapter(tmp_path / "lora", base.config)))
    expected = logits(merged.model)
    assert float((adapted - expected).abs().max()) <= 2e-4
    assert torch.equal(adapted.argmax(-1), expected.argmax(-1))
    assert float((adapted - plain).abs().max()) > 0.1, "the adapter changes nothing, the test says nothing"
    assert torch.equal(logits(base.model), plain), "the model itself is as it was"
    assert all(torch.equal(value, before[key]) for key, value in base.model.state_dict().items())


def test_no_weight_is_copied(tmp_path: Path) -> None:
    tiny.save(tiny.random_model(tiny.text_config("llama")), tmp_path)
    model = load_checkpoint(tmp_path).model
    own = {value.data_ptr() for value in model.parameters()}
    adapted = Adaptable(model).all(Adapter("none", {}))
    assert {value.data_ptr() for value in adapted.parameters()} == own
    assert torch.equal(logits(adapted), logits(model))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Checkpoint, list[Adapter]]:
    """A base and two adapters of it, the second on fewer layers."""
    folder, config = tmp_path_factory.mktemp("shared"), tiny.text_config("llama")
    make_adapter(folder / "base", config, folder / "0", 1, target_modules=DECODER)
    make_adapter(folder / "base", config, folder / "1", 2, target_modules=["v_proj", "up_proj"])
    base = load_checkpoint(folder / "base")
    return folder, base, [read_adapter(folder / name, base.config) for name in "01"]


def test_rows_of_one_batch_have_adapters_of_their_own(shared: tuple[Path, Checkpoint, list[Adapter]]) -> None:
    _, base, (first, second) = shared
    choice = [first, None, second, None, first]
    adaptable = Adaptable(base.model)

    def read(model: Llava, rows: list[int]) -> Tensor:
        ids_B1 = torch.tensor([[40 + row] for row in rows])
        with torch.inference_mode():
            hidden = model(model.language.embed(ids_B1), torch.zeros(len(rows), 1, dtype=torch.long))[:, 0]
            return model.logits(hidden)

    mixed = read(adaptable.rows(choice, 8), [*range(5)])
    plain = read(base.model, [*range(5)])
    for row, adapter in enumerate(choice):
        if adapter is None:
            assert torch.equal(mixed[row], plain[row]), "a row without an adapter has the same bits"
        else:
            every = read(adaptable.rows([adapter] * 5, 8), [*range(5)])
            assert torch.equal(mixed[row], every[row]), "so has one whose neighbours have others"
            assert float((mixed[row] - plain[row]).abs().max()) > 0.1


def test_over_quantized_weights(shared: tuple[Path, Checkpoint, list[Adapter]]) -> None:
    """What is added is the same as over the floats that the quantized weights stand for, up to rounded activations."""
    folder, _, (adapter, _) = shared
    quantized = load_checkpoint(folder / "base", quantize="int8").model
    assert quantized.language.blocks[0].attention.qkv is not None, "queries, keys and values are one layer"
    adapted = logits(Adaptable(quantized).all(adapter), 4)
    merged = logits(load_checkpoint(folder / "base", adapter=folder / "0").model, 4)
    plain, rounded = logits(load_checkpoint(folder / "base").model, 4), logits(quantized, 4)
    noise, effect = float((rounded - plain).std()), float((merged - plain).std())
    assert float((adapted - merged).std()) < 3 * noise < effect / 5
    assert float((adapted.argmax(-1) == merged.argmax(-1)).float().mean()) > 0.9


def test_a_chunk_in_tiles_has_the_same_bits_wherever_it_begins(
    shared: tuple[Path, Checkpoint, list[Adapter]],
) -> None:
    folder, _, (adapter, _) = shared
    adaptable = Adaptable(load_checkpoint(folder / "base", quantize="int8").model)
    x_1TK = torch.randn(1, 24, 64, generator=torch.Generator().manual_seed(1))

    @torch.inference_mode()
    def down(start: int, stop: int) -> Tensor:
        model = adaptable.chunk(adapter, start, stop, 8)
        return model.language.blocks[0].attention.qkv(x_1TK[:, start:stop])[0]

    whole = down(0, 18)
    assert torch.equal(torch.cat([down(0, 8), down(8, 18)]), whole)
    assert torch.equal(torch.cat([down(0, 16), down(16, 18)]), whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_modules": ["embed_tokens"]}, "embed_tokens is no linear layer of the decoder"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["norm"]}, "norm.weight as a whole, 5 such"),
    ],
)
def test_what_cannot_be_chosen_by_request_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    make_adapter(tmp_path / "base", tiny.text_config("llama"), tmp_path / "lora", **options)
    config = load_checkpoint(tmp_path / "base").config
    with pytest.raises(CheckpointError, match=message):
        read_adapter(tmp_path / "lora", config)
    other = replace(config, text=replace(config.text, num_layers=1))
    with pytest.raises(CheckpointError):
        read_adapter(tmp_path / "lora", other)
