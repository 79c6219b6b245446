"""A vision tower and projector in GGUF's words (an `mmproj` file), both ways.

llama.cpp's reading of them is followed but for two places where it departs from the models: it appends the class
token, which belongs first, and it leaves out one more block of files whose last block was already cut off.
"""

from __future__ import annotations

from lapilli.checkpoints.gguf import GGUFFile
from lapilli.checkpoints.gguf_sizes import tower_sizes
from lapilli.config import Activation, LlavaConfig, TextConfig, VisionConfig
from lapilli.errors import CheckpointError
from lapilli.inputs.processor import ImageProcessor

_LARGEST = 1 << 24


def read_tower(file: GGUFFile, text: TextConfig, image_token_id: int) -> LlavaConfig:
    """The model that an mmproj file makes of a decoder. Raises CheckpointError for one that is not known here."""
    if file.text("general.architecture") != "clip":
        raise CheckpointError(f"{file.name}: is no projector file: its architecture must be clip")
    kind = file.text("clip.projector_type", "mlp")
    if kind != "mlp" or not file.flag("clip.has_vision_encoder", True):
        raise CheckpointError(f"{file.name}: projector {kind[:40]!r} is not known here; read is mlp, for pictures")
    vision = _read_vision(file)
    return LlavaConfig(
        text=text,
        vision=vision,
        image_token_id=image_token_id,
        feature_layers=_read_layers(file, vision.num_layers),
        drop_class_token=vision.has_class_token,
        projector="mlp" if "mm.2.weight" in file.tensors else "linear",
        projector_bias="mm.0.bias" in file.tensors or "mm.bias" in file.tensors,
        tile_canvases=_read_canvases(file),
    )


def _read_vision(file: GGUFFile) -> VisionConfig:
    def size(key: str) -> int:
        return file.integer(f"clip.vision.{key}", minimum=1, maximum=_LARGEST)

    siglip = "v.class_embd" not in file.tensors
    if siglip and "v.pre_ln.weight" in file.tensors:
        raise CheckpointError(f"{file.name}: a CLIP tower without a class token (v.class_embd) is not known here")
    return VisionConfig(
        family="siglip" if siglip else "clip",
        hidden_size=size("embedding_length"),
        intermediate_size=size("feed_forward_length"),
        num_layers=size("block_count"),
        num_heads=size("attention.head_count"),
        image_size=size("image_size"),
        patch_size=size("patch_size"),
        activation=_read_activation(file, siglip),
        norm_eps=float(f"{file.number('clip.vision.attention.layer_norm_epsilon'):.7g}"),
    )


def _read_activation(file: GGUFFile, siglip: bool) -> Activation:
    if file.flag("clip.use_silu", False):
        return "silu"
    if not file.flag("clip.use_gelu", False):
        return "quick_gelu"
    # The file says GELU, not which; the towers themselves do.
    return "gelu_tanh" if siglip else "gelu"


def _read_layers(file: GGUFFile, blocks: int) -> tuple[int, ...]:
    """The blocks whose output is used.

    The first converter cut the last block off and marked its files `has_llava_projector`: those use all they have.
    """
    if "clip.vision.feature_layer" in file.metadata:
        return tuple(file.integers("clip.vision.feature_layer"))
    return (blocks,) if file.flag("clip.has_llava_projector", False) else (blocks - 1,)


def _read_canvases(file: GGUFFile) -> tuple[tuple[int, int], ...]:
    """The sizes (height, width) that pictures are tiled to; the file lists them width first, all in one row."""
    if "clip.vision.image_grid_pinpoints" not in file.metadata:
        return ()
    merge = file.text("clip.vision.mm_patch_merge_type", "flat")
    if merge != "spatial_unpad":
        raise CheckpointError(f"{file.name}: mm_patch_merge_type {merge[:40]!r} with tiles is not spatial_unpad")
    sides = file.integers("clip.vision.image_grid_pinpoints")
    if len(sides) % 2:
        raise CheckpointError(f"{file.name}: image_grid_pinpoints has {len(sides)} sides, they must come in pairs")
    return tuple(zip(sides[1::2], sides[::2], strict=True))


def read_processor(file: GGUFFile, config: LlavaConfig) -> ImageProcessor:
    """How llama.cpp prepares pictures for this tower: padded to a square, or cut into tiles."""
    mean, std = (file.numbers(f"clip.vision.image_{name}", 3) for name in ("mean", "std"))
    side = file.integer("clip.vision.image_size")
    shorter = [tuple(float(f"{value:.7g}") for value in values) for values in (mean, std)]
    return ImageProcessor.square(side, *shorter, fit="pad", canvases=config.tile_canvases)


def has_swapped_mlp(file: GGUFFile, vision: VisionConfig) -> bool:
    """Whether up and down have each other's names, as the first converter wrote them.

    llama.cpp tells by the shape, and takes them for swapped where both are square.
    """
    down = file.tensors.get("v.blk.0.ffn_down.weight")
    return down is not None and down.shape == (vision.intermediate_size, vision.hidden_size)


def write_tower(config: LlavaConfig, vision: VisionConfig, processor: ImageProcessor) -> dict[str, object]:
    """The metadata of an mmproj file. Raises CheckpointError for a model that llama.cpp would compute otherwise."""
    if config.projector == "mlp" and config.projector_activation != "gelu":
        raise CheckpointError(
            f"llama.cpp knows a projector of two layers with gelu only, this one has {config.projector_activation}: "
            "save it as a folder instead"
        )
    if vision.has_class_token and not config.drop_class_token:
        raise CheckpointError("llama.cpp drops the class token, this model keeps it: save it as a folder instead")
    if vision.activation not in ("quick_gelu", "silu", "gelu_tanh" if vision.family == "siglip" else "gelu"):
        raise CheckpointError(f"GGUF has no word for a {vision.family} tower with {vision.activation}")
    values: dict[str, object] = {
        "general.architecture": "clip",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": vision.activation in ("gelu", "gelu_tanh"),
        "clip.use_silu": vision.activation == "silu",
        "clip.vision.projection_dim": config.text.hidden_size,
        **tower_sizes(vision),
        "clip.vision.image_mean": list(processor.image_mean),
        "clip.vision.image_std": list(processor.image_std),
        # Said even where it is what llama.cpp would take, so that nobody has to guess.
        "clip.vision.feature_layer": [layer % (vision.num_layers + 1) for layer in config.feature_layers],
    }
    if config.is_next:
        values |= {
            "clip.vision.mm_patch_merge_type": "spatial_unpad",
            "clip.vision.image_aspect_ratio": "anyres",
            "clip.vision.image_grid_pinpoints": [side for pair in config.tile_canvases for side in pair[::-1]],
            "clip.vision.image_crop_resolution": vision.image_size,
        }
    return values
