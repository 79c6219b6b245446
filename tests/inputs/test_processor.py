"""Pictures prepared for the vision tower, beside the reference processors (transformers, Pillow backend)."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from lapilli.config import LlavaConfig, TextConfig, VisionConfig
from lapilli.errors import CheckpointError
from lapilli.inputs import processor as processor_module
from lapilli.inputs.images import open_image
from lapilli.inputs.processor import ImageProcessor

SQUARE = {"height": 28, "width": 28}
CANVASES = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
REFERENCES = {
    "clip": CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=SQUARE),
    "clip, crop larger than the picture": CLIPImageProcessorPil(size={"shortest_edge": 20}, crop_size=SQUARE),
    "clip, odd crop, bilinear": CLIPImageProcessorPil(
        size={"shortest_edge": 31}, crop_size={"height": 17, "width": 32}, resample=2
    ),
    "clip, crop alone": CLIPImageProcessorPil(do_resize=False, crop_size={"height": 57, "width": 40}),
    "clip, not normalised": CLIPImageProcessorPil(
        size={"shortest_edge": 28}, crop_size=SQUARE, do_normalize=False, rescale_factor=1 / 127.5
    ),
    "clip, not rescaled": CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=SQUARE, do_rescale=False),
    "siglip": SiglipImageProcessorPil(size={"height": 32, "width": 24}),
    "siglip, lanczos": SiglipImageProcessorPil(size=SQUARE, resample=1, image_mean=[0.1, 0.2, 0.3]),
    "llava": LlavaImageProcessorPil(size={"shortest_edge": 28}, crop_size=SQUARE),
    "llava, padded to a square": LlavaImageProcessorPil(size={"shortest_edge": 28}, crop_size=SQUARE, do_pad=True),
    "llava-next": LlavaNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_size=SQUARE, image_grid_pinpoints=CANVASES
    ),
    "llava-next, size as height and width": LlavaNextImageProcessorPil(
        size=SQUARE, crop_size=SQUARE, image_grid_pinpoints=CANVASES, resample=2
    ),
}
TRUE_WIDTHS = {
    "llava-1.5": LlavaImageProcessorPil(size={"shortest_edge": 336}, crop_size=336),
    "llava-1.5, padded": LlavaImageProcessorPil(size={"shortest_edge": 336}, crop_size=336, do_pad=True),
    "llava-1.6": LlavaNextImageProcessorPil(size={"shortest_edge": 336}, crop_size=336),
    "siglip-384": SiglipImageProcessorPil(size={"height": 384, "width": 384}),
}
SIZES = [
    (1, 1), (1, 2), (2, 1), (3, 5), (1, 3000), (3000, 1), (13, 1500), (1100, 25), (55, 57), (57, 55), (56, 56),
    (30, 100), (100, 30), (112, 112), (224, 168), (333, 777), (640, 480), (479, 641), (61, 60), (2, 200),
]  # fmt: skip
MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"]


def noise(height: int, width: int) -> Image.Image:
    seed = np.random.default_rng(height * 4096 + width)
    return Image.fromarray(seed.integers(0, 256, (height, width, 3), dtype=np.uint8))


def png(image: Image.Image, **options: Any) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return Image.open(io.BytesIO(out.getvalue()))


@cache
def odd_pictures() -> dict[str, tuple[Image.Image, Image.Image]]:
    """Each as it comes, and as the reference gets it: opened by us where the reference would see another picture."""
    pictures: dict[str, tuple[Image.Image, Image.Image]] = {}
    for height, width in SIZES:
        image = noise(height, width)
        pictures[f"{height} x {width}"] = image, image
    for height, width in ((37, 90), (83, 41)):
        clear = noise(height, width).convert("RGBA")
        clear.putalpha(noise(height, width).convert("L"))
        for mode in MODES:
            image = (clear if mode.endswith("A") else noise(height, width)).convert(mode)
            pictures[f"{mode} {height} x {width}"] = image, image
        palette = noise(height, width).convert("P")
        for name, transparency in (("one clear", 7), ("half clear", bytes(range(256)))):
            image = png(palette, transparency=transparency)
            pictures[f"P, {name} {height} x {width}"] = image, image
        grey = np.asarray(noise(height, width).convert("L"))
        for name, array in (("I;16", grey.astype(np.uint16) * 257), ("F", grey.astype(np.float32) / 255)):
            image = Image.fromarray(array)
            pictures[f"{name} {height} x {width}"] = image, open_image(image)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = png(noise(40, 70), exif=exif.tobytes())
        pictures[f"orientation {orientation}"] = image, open_image(image)
    return pictures


def reference_tiles(reference: Any, image: Image.Image) -> np.ndarray:
    pixels = np.asarray(reference(image, return_tensors="np")["pixel_values"])
    return pixels[0] if pixels.ndim == 5 else pixels


def greatest_difference(reference: Any, ours: ImageProcessor, pictures: dict[str, Any]) -> float:
    greatest = 0.0
    for name, (image, theirs) in pictures.items():
        expected = reference_tiles(reference, theirs)
        prepared = ours.prepare(open_image(image))
        assert prepared.pixels_TCHW.shape == expected.shape, name
        assert prepared.pixels_TCHW.dtype == np.float32
        assert prepared.pixels_TCHW.flags.c_contiguous
        assert prepared.pixels_TCHW.shape[2:] == ours.output_size
        difference = float(np.abs(prepared.pixels_TCHW - expected).max())
        assert difference <= 1 / 255, name
        greatest = max(greatest, difference)
    return greatest


@pytest.mark.parametrize("name", REFERENCES)
def test_pixels_equal_the_reference(name: str) -> None:
    assert len(odd_pictures()) >= 40
    ours = ImageProcessor.from_dict(REFERENCES[name].to_dict())
    greatest = greatest_difference(REFERENCES[name], ours, odd_pictures())
    print(f"{name}: greatest difference {greatest:.2e} on {len(odd_pictures())} pictures")


@pytest.mark.parametrize("name", TRUE_WIDTHS)
def test_pixels_equal_the_reference_at_true_widths(name: str) -> None:
    pictures = {str(size): (noise(*size), noise(*size)) for size in ((480, 640), (700, 333), (100, 30), (336, 336))}
    ours = ImageProcessor.from_dict(TRUE_WIDTHS[name].to_dict())
    print(f"{name}: greatest difference {greatest_difference(TRUE_WIDTHS[name], ours, pictures):.2e}")


@pytest.mark.parametrize("resample", range(1, 6))
@pytest.mark.parametrize("name", ["clip", "llava, padded to a square"])
def test_pictures_never_made_whole_are_the_same(name: str, resample: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ImageProcessor.from_dict(REFERENCES[name].to_dict() | {"resample": resample})
    pictures = [noise(*size) for size in SIZES]
    whole = [ours.prepare(picture).pixels_TCHW for picture in pictures]
    monkeypatch.setattr(processor_module, "_WHOLE_CANVAS", 0)
    monkeypatch.setattr(processor_module, "_WHOLE_RESIZED", 0)
    for picture, expected in zip(pictures, whole, strict=True):
        np.testing.assert_array_equal(ours.prepare(picture).pixels_TCHW, expected)


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_the_thinnest_picture_takes_little(size: tuple[int, int], fit: Any) -> None:
    ours = ImageProcessor.square(336, [0.5] * 3, [0.5] * 3, fit=fit)
    image = Image.new("RGB", size, (10, 20, 30))
    prepared = ours.prepare(image)
    assert prepared.pixels_TCHW.shape == (1, 3, 336, 336)
    if fit != "pad":
        expected = np.array([10, 20, 30]) / 255 * 2 - 1
        np.testing.assert_allclose(prepared.pixels_TCHW[0, :, 168, 168], expected, atol=1e-6)


def test_all_orientations_give_the_identical_tensor() -> None:
    upright, ours = noise(40, 70), ImageProcessor.from_dict(REFERENCES["llava-next"].to_dict())
    stored = [None, *(Image.Transpose(turn) for turn in (0, 3, 1, 5, 2, 6, 4))]
    digests = set()
    for orientation, turn in enumerate(stored, 1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = png(upright if turn is None else upright.transpose(turn), exif=exif.tobytes())
        prepared = ours.prepare(open_image(image))
        assert (prepared.height, prepared.width) == (40, 70)
        np.testing.assert_array_equal(prepared.pixels_TCHW, ours.prepare(upright).pixels_TCHW)
        digests.add(prepared.digest)
    assert len(digests) == 1


def test_a_picture_as_pillow_opened_it_is_brought_through_the_door() -> None:
    ours = ImageProcessor.from_dict(REFERENCES["clip"].to_dict())
    clear = noise(20, 30).convert("RGBA")
    clear.putalpha(noise(20, 30).convert("L"))
    np.testing.assert_array_equal(ours.prepare(clear).pixels_TCHW, ours.prepare(open_image(clear)).pixels_TCHW)


def test_tiles_are_as_many_as_the_configuration_says() -> None:
    vision = VisionConfig(
        family="clip", hidden_size=8, intermediate_size=8, num_layers=1, num_heads=1, image_size=28, patch_size=14,
        activation="gelu", norm_eps=1e-5,
    )  # fmt: skip
    text = TextConfig.from_dict({"model_type": "llama"})
    config = LlavaConfig(text=text, vision=vision, feature_layers=(-1,), tile_canvases=tuple(map(tuple, CANVASES)))
    ours = ImageProcessor.from_dict(REFERENCES["llava-next"].to_dict())
    for size in SIZES:
        prepared = ours.prepare(noise(*size))
        rows, columns = config.tile_grid(prepared.height, prepared.width)
        assert len(prepared.pixels_TCHW) == 1 + rows * columns


def test_a_digest_tells_pictures_and_preparations_apart() -> None:
    clip, next_ = (ImageProcessor.from_dict(REFERENCES[name].to_dict()) for name in ("clip", "llava-next"))
    other = ImageProcessor.from_dict(REFERENCES["clip"].to_dict() | {"image_mean": [0.5, 0.5, 0.5]})
    flat = [Image.new("RGB", size, "red") for size in ((30, 100), (100, 30), (31, 100))]
    digests = [processor.prepare(image).digest for processor in (clip, other, next_) for image in flat]
    assert len(set(digests)) == len(digests)
    assert all(len(digest) == 64 for digest in digests)
    assert clip.prepare(flat[0].copy()).digest == digests[0]


# --- configurations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*REFERENCES, *TRUE_WIDTHS])
def test_a_processor_saved_is_the_processor_loaded_here_and_by_transformers(name: str, tmp_path: Path) -> None:
    reference = (REFERENCES | TRUE_WIDTHS)[name]
    ours = ImageProcessor.from_dict(reference.to_dict())
    assert ImageProcessor.from_dict(json.loads(json.dumps(ours.to_dict()))) == ours
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(ours.to_dict()))
    again = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(again) is type(reference)
    picture = noise(61, 87)
    np.testing.assert_array_equal(reference_tiles(again, picture), reference_tiles(reference, picture))


@pytest.mark.parametrize("suffix", ["", "Fast", "Pil"])
def test_other_spellings_are_the_same_processor(suffix: str) -> None:
    plain = ImageProcessor.from_dict(REFERENCES["clip"].to_dict())
    values = REFERENCES["clip"].to_dict() | {"image_processor_type": f"CLIPImageProcessor{suffix}"}
    assert ImageProcessor.from_dict(values) == plain
    assert ImageProcessor.from_dict({"image_processor": values, "processor_class": "LlavaProcessor"}) == plain
    old = {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "size": 28,
        "crop_size": 28,
        "resample": 3,
        "auto_map": None,
    }
    assert ImageProcessor.from_dict(old) == plain


def test_defaults_are_the_references() -> None:
    for kind, reference in (
        ("CLIPImageProcessor", CLIPImageProcessorPil()),
        ("SiglipImageProcessor", SiglipImageProcessorPil()),
        ("LlavaImageProcessor", LlavaImageProcessorPil()),
        ("LlavaNextImageProcessor", LlavaNextImageProcessorPil(crop_size=336)),
    ):
        given = {"image_processor_type": kind} | ({"crop_size": 336} if "Next" in kind else {})
        assert ImageProcessor.from_dict(given) == ImageProcessor.from_dict(reference.to_dict())


def test_plain_numbers_make_the_processor_of_a_gguf() -> None:
    for fit, name in (("crop", "clip"), ("pad", "llava, padded to a square")):
        values = REFERENCES[name].to_dict()
        ours = ImageProcessor.square(28, values["image_mean"], values["image_std"], fit=fit)
        assert ours == ImageProcessor.from_dict(values)
    values = REFERENCES["llava-next"].to_dict()
    ours = ImageProcessor.square(28, values["image_mean"], values["image_std"], fit="pad", canvases=CANVASES)
    assert ours == ImageProcessor.from_dict(values)
    stretched = ImageProcessor.square(28, [0.5] * 3, [0.5] * 3, fit="stretch")
    assert stretched == ImageProcessor.from_dict(SiglipImageProcessorPil(size=SQUARE).to_dict())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_processor_type": "ViTImageProcessor"}, "'ViTImageProcessor' is not known"),
        ({"image_processor_type": None}, "None is not known"),
        ({"do_sharpen": True, "crop_pct": 0.9}, "crop_pct, do_sharpen"),
        ({"image_grid_pinpoints": CANVASES}, "image_grid_pinpoints"),
        ({"size": {"shortest_edge": 28, "longest_edge": 99}}, "size must be an object with shortest_edge"),
        ({"size": {"shortest_edge": 0}}, "between 1 and 4096"),
        ({"size": {"height": 56, "width": 10**9}}, "between 1 and 4096"),
        ({"size": {"height": 56, "width": True}}, "between 1 and 4096"),
        ({"size": "56"}, "size must be"),
        ({"crop_size": [56, 56, 56]}, "crop_size must be"),
        ({"crop_size": {"shortest_edge": 28}}, "crop_size must be"),
        ({"do_center_crop": False}, "preprocessor_config.json: pictures would come out in different sizes"),
        ({"do_resize": "yes"}, "do_resize must be true or false"),
        ({"resample": 6}, "resample must be"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std must be above zero"),
        ({"image_mean": [0.5, float("nan"), 0.5]}, "image_mean must be made of finite numbers"),
        ({"image_mean": [0.5] * 4}, "image_mean must be one number or three"),
        ({"rescale_factor": 0}, "rescale_factor must be above zero"),
        ({"rescale_factor": float("inf")}, "rescale_factor must be made of finite numbers"),
    ],
)
def test_what_would_change_pixels_is_refused_by_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        ImageProcessor.from_dict(REFERENCES["clip"].to_dict() | change)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "canvases", [[], [[28, 100]], [[28]], "28", [[28, 28]] * 300, [[28, 28 * 10**6]], [[28, None]]]
)
def test_impossible_canvases_are_refused(canvases: Any) -> None:
    with pytest.raises(CheckpointError, match="image_grid_pinpoints"):
        ImageProcessor.from_dict(REFERENCES["llava-next"].to_dict() | {"image_grid_pinpoints": canvases})


@pytest.mark.parametrize("size", [(200, 120), (120, 200), (97, 63), (30, 90)])
@pytest.mark.parametrize("fit", ["pad", "crop", "stretch", "tiles", "small"])
def test_the_frame_says_where_a_place_of_the_tile_lies_in_the_picture(fit: str, size: tuple[int, int]) -> None:
    if fit == "small":  # not resized: a picture smaller than the tile is set on black
        values = {"image_processor_type": "CLIPImageProcessor", "do_resize": False, "crop_size": 160}
        processor = ImageProcessor.from_dict(values)
    else:
        shape = {"fit": "pad", "canvases": [(112, 224), (224, 112)]} if fit == "tiles" else {"fit": fit}
        processor = ImageProcessor.square(112, (0.5,) * 3, (0.5,) * 3, **shape)
    width, height = size
    x, y = width * 0.55, height * 0.45
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[int(y) - 4 : int(y) + 4, int(x) - 4 : int(x) + 4] = 255
    tile = processor.prepare(Image.fromarray(pixels)).pixels_TCHW[0, 0]
    light = np.clip(tile - np.median(tile), 0, None) * (tile > tile.max() - 0.5)
    down, across = np.nonzero(light)
    left, top, right, bottom = processor.frame(height, width)
    found_x = left + (across.mean() + 0.5) / tile.shape[1] * (right - left)
    found_y = top + (down.mean() + 0.5) / tile.shape[0] * (bottom - top)
    assert abs(found_x - int(x)) < 1.5
    assert abs(found_y - int(y)) < 1.5
