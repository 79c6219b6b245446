"""Quantized while loading, kept quantized as GGUF has them, and written as GGUF: each held against plain floats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import peft
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from checkpoints import our_logits, save_llava
from lapilli.checkpoints.ggml import TensorType, dequantize, q5_0_as_q8_0, quantize
from lapilli.checkpoints.gguf import read_gguf
from lapilli.checkpoints.load import Checkpoint, load_checkpoint
from lapilli.checkpoints.mixture import MIXTURES, Mixture
from lapilli.checkpoints.quantize import mmproj_beside, quantize_checkpoint
from lapilli.checkpoints.save import save_folder, save_gguf
from lapilli.checkpoints.weights import weights_of
from lapilli.errors import CheckpointError, InputError
from lapilli.model.llava import Llava
from lapilli.model.quantized import QuantizedEmbedding, QuantizedLinear, sums_rows_alone

WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}
FAMILIES: dict[str, Any] = {
    "llama": {},
    "tied llama": {"tie_word_embeddings": True},
    "llama with biases": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"sliding_window": 6},
    "phi3": {},
    "qwen2": {},
}


def save_decoder(family: str, folder: Path, **changes: Any) -> Path:
    kind = next(name for name in ("llama", "mistral", "phi3", "qwen2") if name in family)
    config = tiny.text_config(kind, **(WIDE | FAMILIES[family] | changes))
    return tiny.save(tiny.random_model(config), folder)


def in_floats(checkpoint: Checkpoint) -> Checkpoint:
    """The same model with every matrix expanded: what is left to differ is how activations are rounded."""
    model = Llava(checkpoint.config)
    model.load_state_dict({name: weight.read() for name, weight in weights_of(checkpoint.model).items()})
    return replace(checkpoint, model=model.eval())


def assert_same_weights(checkpoint: Checkpoint, floats: Checkpoint) -> None:
    expected = dict(floats.model.named_parameters())
    found = weights_of(checkpoint.model)
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        assert torch.equal(weight.read(), expected[name]), name


def cosine(one: Tensor, other: Tensor) -> float:
    return float(nn.functional.cosine_similarity(one, other, dim=-1).min())


def quantized_layers(checkpoint: Checkpoint) -> dict[str, str]:
    return {
        name: module.weight.type
        for name, module in checkpoint.model.named_modules()
        if isinstance(module, QuantizedLinear | QuantizedEmbedding)
    }


# While loading


@pytest.mark.parametrize("bits", ["int8", "int4"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_decoder_is_quantized_while_loading(family: str, bits: Any, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(save_decoder(family, tmp_path), quantize=bits)
    assert checkpoint.left_in_float == ()
    assert not any(isinstance(module, nn.Linear | nn.Embedding) for module in checkpoint.model.modules())
    expected = {"int8": {"Q8_0"}, "int4": {"Q4_K", "Q6_K"}}[bits]
    assert set(quantized_layers(checkpoint).values()) == expected
    assert cosine(our_logits(checkpoint), our_logits(in_floats(checkpoint))) >= 0.999
    whole = load_checkpoint(tmp_path)
    assert cosine(our_logits(checkpoint), our_logits(whole)) >= {"int8": 0.998, "int4": 0.9}[bits]
    assert sums_rows_alone(checkpoint.model)
    assert not sums_rows_alone(whole.model)


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_tower_and_projector_are_quantized_too(bits: Any, tmp_path: Path) -> None:
    save_llava(tmp_path, text=tiny.text_config("llama", **WIDE))
    checkpoint = load_checkpoint(tmp_path, quantize=bits)
    # The tower is 48 wide, which no block divides; what is 80 wide neither.
    assert all(name.startswith(("vision.", "projector.linear_1")) for name in checkpoint.left_in_float)
    assert "vision.blocks.0.attention.q.weight" in checkpoint.left_in_float
    wide = tiny.vision_config("clip", hidden_size=64, intermediate_size=128, num_attention_heads=4)
    tiny.save(tiny.random_model(tiny.llava_config(wide, tiny.text_config("llama", **WIDE))), tmp_path / "wide")
    checkpoint = load_checkpoint(tmp_path / "wide", quantize=bits)
    assert checkpoint.left_in_float == ()
    layers = quantized_layers(checkpoint)
    assert {layers["vision.blocks.2.mlp.down"], layers["projector.linear_1"]} == {"Q8_0"}
    tiles = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    found, expected = (our_logits(model, tiles=tiles) for model in (checkpoint, in_floats(checkpoint)))
    assert cosine(found, expected) >= 0.999


def test_rows_of_no_whole_blocks_take_the_better_of_two_types(tmp_path: Path) -> None:
    path = save_decoder("llama", tmp_path, intermediate_size=96)
    tensors = load_file(path / "model.safetensors")
    one_sided = tensors["model.layers.0.mlp.down_proj.weight"].abs() + 0.2
    tensors["model.layers.0.mlp.down_proj.weight"] = one_sided
    save_file(tensors, path / "model.safetensors")
    layers = quantized_layers(load_checkpoint(path, quantize="int4"))
    # Weights on one side of zero do better with a lowest value of their own; the last layer is to have more bits.
    assert layers["language.blocks.0.mlp.down"] == "Q4_1"
    assert layers["language.blocks.1.mlp.down"] == "Q8_0"
    tensors["model.layers.0.mlp.down_proj.weight"] = one_sided * torch.tensor([1.0, -0.001]).repeat(48)
    tensors["model.layers.0.mlp.down_proj.weight"][:, ::32] *= -1.1
    save_file(tensors, path / "model.safetensors")
    # One outlier below zero, on which the lowest level of Q4_0 lands.
    assert quantized_layers(load_checkpoint(path, quantize="int4"))["language.blocks.0.mlp.down"] in ("Q4_0", "Q4_1")


def test_what_has_fewer_bits_already_is_not_rounded_again(tmp_path: Path) -> None:
    whole = load_checkpoint(save_decoder("llama", tmp_path))
    save_gguf(whole, tmp_path / "q4.gguf", type="Q4_0")
    for bits in ("int8", "int4"):
        kept = load_checkpoint(tmp_path / "q4.gguf", quantize=bits)
        assert set(quantized_layers(kept).values()) == {"Q4_0"}
        assert_same_weights(kept, load_checkpoint(tmp_path / "q4.gguf", expand=True))
    save_gguf(whole, tmp_path / "q8.gguf", type="Q8_0")
    assert "Q4_K" in quantized_layers(load_checkpoint(tmp_path / "q8.gguf", quantize="int4")).values()


def test_only_known_bits_are_taken(tmp_path: Path) -> None:
    path = save_decoder("llama", tmp_path)
    with pytest.raises(InputError, match="quantize is 'int3', it may be 'int8' or 'int4'"):
        load_checkpoint(path, quantize="int3")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="runs on a CPU, the device is meta"):
        load_checkpoint(path, quantize="int8", device="meta")


def test_half_precision_is_computed_as_float32_where_matrices_are_quantized(tmp_path: Path) -> None:
    tiny.save(tiny.random_model(tiny.text_config("llama", **WIDE)).to(torch.float16), tmp_path)
    assert load_checkpoint(tmp_path, quantize="int8").model.dtype == torch.float32
    assert load_checkpoint(tmp_path, quantize="int8", dtype=torch.bfloat16).model.dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers", "ignore::UserWarning:peft")
def test_an_adapter_is_merged_into_a_quantized_matrix(tmp_path: Path) -> None:
    base = tiny.random_model(tiny.text_config("llama", **WIDE))
    tiny.save(base, tmp_path / "base")
    adapted = peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    save_gguf(load_checkpoint(tmp_path / "base"), tmp_path / "base.gguf", type="Q8_0")
    found = load_checkpoint(tmp_path / "base.gguf", adapter=tmp_path / "adapter")
    floats = load_checkpoint(tmp_path / "base.gguf", adapter=tmp_path / "adapter", expand=True)
    assert set(quantized_layers(found).values()) == {"Q8_0"}
    query = "language.blocks.0.attention.q.weight"
    merged, expected = weights_of(found.model)[query].read(), floats.model.get_parameter(query)
    again = dequantize(quantize(expected.detach().numpy(), "Q8_0"), "Q8_0", expected.shape)
    assert torch.equal(merged, torch.from_numpy(again))
    alone = load_checkpoint(tmp_path / "base.gguf")
    assert not torch.equal(weights_of(alone.model)[query].read(), merged)
    key = "language.blocks.0.attention.k.weight"
    assert torch.equal(weights_of(alone.model)[key].read(), weights_of(found.model)[key].read())


# Kept as a GGUF file has it


@pytest.mark.parametrize(
    ("family", "type"),
    [
        *(("llama", type) for type in ("Q4_0", "Q4_1", "Q4_K", "Q6_K", "Q8_0", "Q5_0", "Q5_K")),
        *((family, "mixture") for family in ("llama", "tied llama", "phi3", "qwen2")),
    ],
)
def test_kept_weights_are_those_of_the_file(family: str, type: str, tmp_path: Path) -> None:
    mixture = MIXTURES["Q4_K_M"] if type == "mixture" else Mixture.pure(TensorType(type))
    save_gguf(load_checkpoint(save_decoder(family, tmp_path)), tmp_path / "model.gguf", type=mixture)
    kept = load_checkpoint(tmp_path / "model.gguf")
    floats = load_checkpoint(tmp_path / "model.gguf", dtype=torch.float32)
    assert_same_weights(kept, floats)
    assert {value.dtype for value in kept.model.parameters()} == {torch.float32}
    expected = {"Q5_0": {"Q8_0"}, "Q5_K": set(), "mixture": {"Q4_K", "Q6_K"}}.get(type, {type})
    assert set(quantized_layers(kept).values()) == expected
    assert cosine(our_logits(kept), our_logits(floats)) >= 0.999
    assert not quantized_layers(floats)


def test_layers_of_one_type_are_computed_together(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(save_decoder("llama", tmp_path), quantize="int4")
    layers = quantized_layers(checkpoint)
    # In the last layer the values have more bits than queries and keys.
    assert "language.blocks.0.attention.qkv" in layers
    assert "language.blocks.0.attention.q" not in layers
    assert "language.blocks.1.attention.qkv" not in layers
    assert layers["language.blocks.1.attention.v"] == "Q6_K"
    assert "language.blocks.1.mlp.gate_up" in layers


def test_five_bits_are_eight_without_a_change() -> None:
    weights = np.random.default_rng(0).standard_normal((40, 96)).astype(np.float32)
    raw = quantize(weights, "Q5_0")
    np.testing.assert_array_equal(
        dequantize(q5_0_as_q8_0(raw), "Q8_0", weights.shape), dequantize(raw, "Q5_0", weights.shape)
    )


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_a_quantized_model_is_saved_as_it_is(family: str, tmp_path: Path) -> None:
    kept = load_checkpoint(save_decoder(family, tmp_path / "theirs"), quantize="int4")
    save_gguf(kept, tmp_path / "again.gguf", type=MIXTURES["Q4_K_M"])
    again = load_checkpoint(tmp_path / "again.gguf")
    assert_same_weights(again, in_floats(kept))
    save_folder(kept, tmp_path / "folder")
    assert_same_weights(load_checkpoint(tmp_path / "folder"), in_floats(kept))


# Written as GGUF


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    text = tiny.text_config("llama", **WIDE, num_hidden_layers=8)
    tower = tiny.vision_config("siglip", hidden_size=64, intermediate_size=128, num_attention_heads=4)
    return tiny.save(tiny.random_model(tiny.llava_config(tower, text, vision_feature_select_strategy="full")), folder)


def test_types_are_those_of_llama_cpp(llava: Path, tmp_path: Path) -> None:
    quantize_checkpoint(llava, tmp_path / "model.gguf", "Q4_K_M")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert reader.get_field("general.file_type").contents() == gguf.LlamaFileType.MOSTLY_Q4_K_M
    more = {0, 3, 6, 7}  # the first eighth, every third after, the last eighth
    for layer in range(8):
        careful = "Q6_K" if layer in more else "Q4_K"
        assert types[f"blk.{layer}.attn_v.weight"] == types[f"blk.{layer}.ffn_down.weight"] == careful
        for part in ("attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up"):
            assert types[f"blk.{layer}.{part}.weight"] == "Q4_K"
        assert types[f"blk.{layer}.attn_norm.weight"] == "F32"
    assert (types["output.weight"], types["token_embd.weight"]) == ("Q6_K", "Q4_K")
    eyes = gguf.GGUFReader(mmproj_beside(tmp_path / "model.gguf"))
    types = {tensor.name: tensor.tensor_type.name for tensor in eyes.tensors}
    assert types["v.blk.0.attn_q.weight"] == types["v.blk.2.ffn_down.weight"] == types["mm.0.weight"] == "Q8_0"
    assert (types["v.patch_embd.weight"], types["v.position_embd.weight"]) == ("F16", "F32")
    assert types["v.blk.0.ln1.weight"] == types["mm.0.bias"] == "F32"


def test_written_and_loaded_is_near_the_original(llava: Path, tmp_path: Path) -> None:
    report = quantize_checkpoint(llava, tmp_path / "model.gguf", "Q8_0")
    assert report.files == (tmp_path / "model.gguf", tmp_path / "mmproj-model.gguf")
    found = load_checkpoint(report.files[0], projector=report.files[1])
    floats = load_checkpoint(report.files[0], projector=report.files[1], dtype=torch.float32)
    assert_same_weights(found, floats)
    tiles = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    assert cosine(our_logits(found, tiles=tiles), our_logits(floats, tiles=tiles)) >= 0.999
    assert cosine(our_logits(floats, tiles=tiles), our_logits(load_checkpoint(llava), tiles=tiles)) >= 0.998
    # The same file again, in the same types: bit for bit, and nothing lost.
    copied = quantize_checkpoint(report.files[0], tmp_path / "copy.gguf", "Q8_0", projector=report.files[1])
    for one, other in zip(report.files, copied.files, strict=True):
        tensors = read_gguf(one).tensors
        assert {name: t.data.tobytes() for name, t in read_gguf(other).tensors.items()} == {
            name: t.data.tobytes() for name, t in tensors.items()
        }
    assert all(group.error == 0 for group in copied.groups if group.types[0] != "F32")


def test_the_report_adds_up(llava: Path, tmp_path: Path) -> None:
    told: list[int] = []
    report = quantize_checkpoint(
        llava, tmp_path / "model.gguf", "Q4_K_S", begin=told.append, watch=lambda _, nbytes: told.append(nbytes)
    )
    assert told[0] == sum(told[1:]) == sum(group.nbytes for group in report.groups)
    file = read_gguf(report.files[0])
    assert sum(group.weights for group in report.groups) == sum(
        int(np.prod(tensor.shape)) for path in report.files for tensor in read_gguf(path).tensors.values()
    )
    head = next(group for group in report.groups if group.name == "head")
    original = load_checkpoint(llava).model.language.head.weight.detach().numpy()
    wrong = file.tensors["output.weight"].dequantize() - original
    assert head.types == ("Q6_K",)
    assert head.error == pytest.approx(float(np.sqrt((wrong**2).sum() / (original**2).sum())), rel=1e-4)
    assert head.bits == pytest.approx(6.5625)
    for group in report.groups:
        low, high = {"Q4_K": (0.05, 0.1), "Q6_K": (0.01, 0.03), "Q8_0": (0.002, 0.01)}.get(group.types[0], (0, 0))
        assert low <= group.error <= high, group
    table = report.table()
    assert all(group.name in table for group in report.groups)
    assert report.to_dict()["files"] == {str(path): path.stat().st_size for path in report.files}


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = save_llava(tmp_path / "theirs") and tmp_path / "theirs" / "model.safetensors"
    tensors = load_file(path)
    tensors["language_model.model.norm.weight"][0] = torch.inf
    tensors["language_model.lm_head.weight"][0, 0] = torch.nan
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"^model.gguf: tensor output.weight: holds NaN or infinity"):
        quantize_checkpoint(path.parent, tmp_path / "out" / "model.gguf", "Q8_0")
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(CheckpointError, match=r"^language.head.weight: holds NaN or infinity, which Q8_0 cannot"):
        load_checkpoint(path.parent, quantize="int8")


def test_files_are_replaced_on_purpose_only(llava: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.gguf"
    mmproj_beside(out).write_bytes(b"mine")
    with pytest.raises(InputError, match=r"mmproj-model.gguf: is there already.*--force"):
        quantize_checkpoint(llava, out, "Q8_0")
    assert [path.name for path in tmp_path.iterdir()] == ["mmproj-model.gguf"]
    assert len(quantize_checkpoint(llava, out, "Q8_0", replace=True).files) == 2


@pytest.mark.parametrize("name", ["model.bin", "mmproj-model.gguf", "model"])
def test_names_that_would_not_be_found_again_are_refused(name: str, llava: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in .gguf"):
        quantize_checkpoint(llava, tmp_path / name)


def test_the_disk_must_have_the_room(llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"0.00 GB are needed, the disk has 0.00 GB free"):
        quantize_checkpoint(llava, tmp_path / "new" / "model.gguf")
    assert not (tmp_path / "new").exists()


def test_unknown_types_are_refused(llava: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no type 'Q3_K' to quantize to; there are Q8_0, Q6_K, Q4_K_M"):
        quantize_checkpoint(llava, tmp_path / "model.gguf", "Q3_K")


@pytest.mark.parametrize("name", MIXTURES)
def test_every_mixture_can_be_loaded(name: str, tmp_path: Path) -> None:
    save_decoder("llama", tmp_path, num_hidden_layers=9, hidden_size=96, intermediate_size=144)
    quantize_checkpoint(tmp_path, tmp_path / "model.gguf", name)
    assert_same_weights(load_checkpoint(tmp_path / "model.gguf"), load_checkpoint(tmp_path / "model.gguf", expand=True))
