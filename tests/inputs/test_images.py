"""The one door from bytes to a picture."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lapilli.errors import ImageError
from lapilli.inputs.images import MAX_BYTES, open_cutout, open_image

RED, WHITE = (255, 0, 0), (255, 255, 255)


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels > 1 else pixels[..., 0])


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    assert image.info == {}
    return np.asarray(image)


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, before: bytes = b"", after: bytes = b""
) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + before + data + after + chunk(b"IEND", b"")


def bmp(width: int, height: int, bits: int, packing: int, body: bytes) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, packing, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54 + 1024 * (bits == 8)) + header + body


# --- what is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_bytes_a_path_and_a_pillow_image_give_the_same_picture(format: str, tmp_path: Path) -> None:
    data = encode(noise(17, 23), format)
    path = tmp_path / "picture without a suffix"
    path.write_bytes(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    for source in (data, str(path), path, Image.open(io.BytesIO(data))):
        np.testing.assert_array_equal(pixels(open_image(source)), expected)


def test_only_the_first_picture_of_an_animation_is_read() -> None:
    first, second = Image.new("RGB", (9, 7), "red"), Image.new("RGB", (9, 7), "blue")
    for format in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = encode(first, format, save_all=True, append_images=[second] * 5, duration=10, **options)
        opened = open_image(data)
        assert (opened.size, opened.getpixel((4, 4))) == ((9, 7), RED), format


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    clear.putpixel((1, 0), (0, 0, 0, 0))
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 51))
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    for data in (
        encode(clear, "PNG"),
        encode(clear, "WEBP", lossless=True, exact=True),
        encode(palette, "PNG", transparency=1),
        encode(palette, "PNG", transparency=b"\xff\x00"),
        encode(palette, "GIF", transparency=1),
    ):
        assert pixels(open_image(data)).tolist() == [[list(RED), list(WHITE)]]
    assert pixels(open_image(encode(half, "PNG"))).tolist() == [[[204, 204, 204]]]
    assert pixels(open_image(half.convert("RGBa"))).tolist() == [[[204, 204, 204]]]


@pytest.mark.parametrize(
    ("depth", "colour", "row", "clear", "expected"),
    [
        (1, 0, b"\x40", (1,), [0, 255]),
        (2, 0, b"\x60", (2,), [85, 255]),
        (4, 0, b"\x3c", (12,), [51, 255]),
        (8, 0, b"\x07\x64", (100,), [7, 255]),
        (16, 0, b"\x80\x12\x80\x13", (0x8013,), [128, 255]),
        (8, 2, b"\x01\x01\x01\x09\x08\x07", (9, 8, 7), [1, 255]),
        (16, 2, b"\x20\x00" * 3 + b"\x10\x00" * 3, (0x1000, 0x1000, 0x1000), [32, 255]),
    ],
)
def test_one_clear_colour_is_told_at_every_depth(
    depth: int, colour: int, row: bytes, clear: tuple[int, ...], expected: list[int]
) -> None:
    data = png(2, 1, depth, colour, b"\0" + row, chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear)))
    assert pixels(open_image(data))[0, :, 0].tolist() == expected


def test_sixteen_bits_become_eight_by_scaling() -> None:
    deep = np.array([[0, 257, 257 * 128, 65535]], np.uint16)
    for image in (Image.fromarray(deep), open_image(encode(Image.fromarray(deep), "PNG"))):
        assert pixels(open_image(image))[0, :, 1].tolist() == [0, 1, 128, 255]


def test_numbers_are_scaled_by_what_they_hold() -> None:
    def opened(values: list[float], kind: type) -> list[int]:
        return pixels(open_image(Image.fromarray(np.array([values], kind))))[0, :, 0].tolist()

    assert opened([0, 0.5, 1], np.float32) == [0, 128, 255]
    assert opened([0, 1, 254.6], np.float32) == [0, 1, 255]
    assert opened([0, 255], np.int32) == [0, 255]
    assert opened([0, 65535], np.int32) == [0, 255]
    for bad in (-0.1, 256.0, float("nan"), float("inf")):
        with pytest.raises(ImageError, match="mode F"):
            opened([0, bad], np.float32)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
)
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("RGB", (3, 2), "white")
    image = image.convert("LA").convert("La") if mode == "La" else image.convert(mode) if mode != "PA" else image
    image = image.convert("P").convert("PA") if mode == "PA" else image
    image = image.convert("RGBA").convert("RGBa") if mode == "RGBa" else image
    assert pixels(open_image(image)).tolist() == [[list(WHITE)] * 3] * 2


def test_cmyk_jpeg_keeps_its_colours() -> None:
    data = encode(Image.new("RGB", (8, 8), (200, 30, 60)).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(pixels(open_image(data)).astype(int) - (200, 30, 60)).max() < 8


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_all_eight_orientations_give_the_same_picture(format: str) -> None:
    upright = noise(24, 40).resize((40, 24))
    undone = [None, *(Image.Transpose(turn) for turn in (0, 3, 1, 5, 2, 6, 4))]
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
    seen = []
    for orientation, turn in enumerate(undone, 1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = upright if turn is None else upright.transpose(turn)
        data = encode(stored, format, exif=exif.tobytes(), **options)
        assert open_image(data).size == (40, 24)
        np.testing.assert_array_equal(pixels(open_image(Image.open(io.BytesIO(data)))), pixels(open_image(data)))
        seen.append(pixels(open_image(data)).astype(int))
    for other in seen[1:]:
        # A JPEG that is stored turned is coded in other blocks: its rounding may differ, nothing else.
        assert np.abs(other - seen[0]).max() <= (8 if format == "JPEG" else 0)


def test_orientation_is_applied_once() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    once = open_image(encode(noise(4, 9), "PNG", exif=exif.tobytes()))
    assert open_image(once).size == once.size == (4, 9)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_pillow_may_use_one_decoder_alone(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed, opened = [], Image.open
    monkeypatch.setattr(Image, "open", lambda file, formats: allowed.append(formats) or opened(file, formats=formats))
    open_image(encode(noise(5, 5), format))
    assert allowed == [(format,)]


def test_the_callers_image_is_left_alone() -> None:
    image = noise(3, 3)
    opened = open_image(image)
    opened.putpixel((0, 0), (1, 2, 3))
    assert image.getpixel((0, 0)) != (1, 2, 3)


# --- what is refused ------------------------------------------------------------------------------------------------


def refusal(source: bytes | str) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(source)
    text = str(caught.value)
    assert text.isprintable()
    assert not re.search(r"0x[0-9a-f]{6,}|<.*object|PIL", text)
    return text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"not a picture", "no PNG, JPEG, WebP, GIF or BMP"),
        (b"%PDF-1.7 ...", "a PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ", "base64"),
        (b"data:image/png;base64,iVBO", "base64"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (encode(Image.new("RGB", (4, 4)), "TIFF"), "TIFF"),
        (encode(Image.new("RGB", (4, 4)), "PPM"), "no PNG"),
        (encode(Image.new("RGB", (16, 16)), "ICO"), "icon"),
        (png(50_000, 50_000, 1, 0, bytes(1 << 20)), "50000 x 50000 = 2500.0 megapixels, at most 64"),
        (png(8_001, 8_000, 1, 0, bytes(1 << 20)), "64.0 megapixels, at most 64"),
        (png(70_000, 1, 1, 0, bytes(1 << 14)), "a side may have 65535"),
        (png(0, 5, 8, 2, b""), "no pixels"),
        (png(8_000, 8_000, 8, 2, b""), "cannot hold 8000 x 8000"),
        (png(2, 2, 8, 2, b"\0" * 5), "the PNG file"),
        (png(1, 1, 8, 2, b"\0\1\2\3", chunk(b"tEXt", b"a\0b") * 100_001), "more than 100000 blocks"),
        (b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xfe\x3f\0" * 2, "16383 x 16383"),
        (b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",", "65535 x 65535"),
        (b"GIF89a" + struct.pack("<HHBBB", 5, 5, 0, 0, 0) + b",\0\0\0\0" + b"\xff" * 4 + b"\0", "65535 x 65535"),
        (b"GIF89a" + struct.pack("<HHBBB", 5, 5, 0, 0, 0) + b";", "holds no picture"),
        (bmp(8_000, 8_000, 24, 0, b""), "cannot hold 8000 x 8000"),
        (bmp(3_000, 3_000, 8, 1, bytes(2_000)), "run-length"),
        (b"\xff\xd8" + b"\xff\xe1\0\2" * 10_001, "more than 10000 segments"),
        (b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\1\1\x11\0", "65535 x 65535"),
        (b"\xff\xd8\xff\xe0\0\0", "no length"),
        (b"\xff\xd8" + b"\xff" * 100, "holds no picture"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused_in_one_clear_line(data: bytes, said: str) -> None:
    assert said in refusal(data)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_file_that_ends_early_is_refused(format: str) -> None:
    data = encode(noise(40, 40), format)
    for length in (3, 20, 40, len(data) // 2, len(data) * 9 // 10):
        refusal(data[:length])


def test_every_other_format_of_pillow_is_refused() -> None:
    Image.init()
    tried = 0
    for format in sorted(set(Image.SAVE) - {"PNG", "JPEG", "WEBP", "GIF", "BMP", "MPO", "DIB"}):
        for mode in ("RGB", "L", "1"):
            try:
                data = encode(Image.new(mode, (64, 64)), format)
            except Exception:
                continue
            refusal(data)
            tried += 1
            break
    assert tried >= 10


def test_a_hundred_scans_are_enough() -> None:
    data = encode(noise(64, 64), "JPEG", progressive=True)
    start = data.rfind(b"\xff\xda")
    refusal(data[:start] + data[start:-2] * 120 + b"\xff\xd9")


def test_metadata_is_never_unpacked() -> None:
    bomb = zlib.compress(bytes(64 << 20), 9)
    hidden = chunk(b"iCCP", b"x\0\0" + bomb) + chunk(b"zTXt", b"x\0\0" + bomb) + chunk(b"iTXt", b"x\0\1\0\0\0" + bomb)
    assert pixels(open_image(png(1, 1, 8, 2, b"\0\1\2\3", hidden, hidden))).tolist() == [[[1, 2, 3]]]


def test_exif_that_claims_a_lot_costs_nothing() -> None:
    entries = b"".join(struct.pack(">HHII", 1000 + tag, 1, 60_000, 0) for tag in range(5000))
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 5000) + entries + bytes(4)
    data = encode(noise(8, 8), "JPEG")
    start = time.perf_counter()
    open_image(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    assert time.perf_counter() - start < 1


_BOMBS = """
import resource, sys, time
from PIL import Image
from lapilli.errors import ImageError
from lapilli.inputs.images import open_image
open_image(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
slowest = 0.0
for path in sys.argv[2:]:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        try:
            open_image(path)
        except ImageError:
            times.append(time.perf_counter() - start)
    slowest = max(slowest, min(times))
print(slowest, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def _child_environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.mark.skipif(sys.platform == "win32", reason="measures memory as POSIX counts it")
def test_bombs_are_refused_fast_and_in_little_memory(tmp_path: Path) -> None:
    files = [
        png(1, 1, 8, 2, bytes(4)),
        png(50_000, 50_000, 1, 0, bytes(1 << 22)),
        bmp(8_000, 8_000, 24, 0, b""),
        b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xfe\x3f\0" * 2,
    ]
    paths = [tmp_path / str(number) for number in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", _BOMBS, *paths], env=_child_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    seconds, mebibytes = map(float, done.stdout.split())
    print(f"slowest refusal {seconds * 1000:.2f} ms, memory grew by {mebibytes:.1f} MiB")
    assert seconds < 0.2
    assert mebibytes < 16


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (
        tmp_path,
        tmp_path / "fifo",
        "/dev/zero",
        "/dev/stdin",
        tmp_path / "nothing here",
        "a\0b",
        "",
        "x" * 9999,
    ):
        assert len(refusal(str(path))) < 400


def test_a_file_past_the_limit_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert f"at most {MAX_BYTES}" in refusal(str(tmp_path / "large.png"))
    assert f"at most {MAX_BYTES}" in refusal(bytes(MAX_BYTES + 1))


def test_the_name_is_told_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "note.png").write_bytes(b"hello")
    monkeypatch.chdir(tmp_path)
    text = refusal("note.png")
    assert text.startswith("note.png: ")
    assert str(tmp_path) not in text
    assert "a URL" in refusal("https://example.org/a.png")


# --- whatever comes -------------------------------------------------------------------------------------------------


def _seeds() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    image, tagged = noise(13, 9), {"exif": exif.tobytes()}
    clear = noise(13, 9, channels=4)
    palette = image.convert("P")
    return [
        encode(image, "PNG", **tagged),
        encode(clear, "PNG"),
        encode(palette, "PNG", transparency=b"\x10" * 200),
        encode(Image.fromarray(np.arange(90, dtype=np.uint16).reshape(9, 10) * 700), "PNG"),
        encode(image, "PNG", save_all=True, append_images=[noise(13, 9, 1)]),
        png(2, 1, 4, 0, b"\0\x3c", chunk(b"tRNS", b"\0\x0c")),
        encode(image, "JPEG", **tagged),
        encode(image, "JPEG", progressive=True, comment=b"hello"),
        encode(image.convert("CMYK"), "JPEG"),
        encode(image, "WEBP", **tagged),
        encode(clear, "WEBP", lossless=True),
        encode(image, "WEBP", save_all=True, append_images=[noise(13, 9, 1)]),
        encode(palette, "GIF", transparency=3, comment=b"hello"),
        encode(image, "GIF", save_all=True, append_images=[noise(13, 9, 1)]),
        encode(image, "BMP"),
        encode(palette, "BMP"),
        bmp(9, 3, 8, 1, bytes(1024) + b"\x09\x01\0\0" * 3 + b"\0\1"),
    ]


_SEEDS = _seeds()


@st.composite
def mutated_files(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(_SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.integers(0, 5)):
            case 0:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                data[at : at + 4] = draw(st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"]))
            case 2:
                del data[at : at + draw(st.integers(1, 40))]
            case 3:
                data[at:at] = draw(st.binary(max_size=20))
            case 4:
                data[at:at] = data[at : at + draw(st.integers(1, 200))]
            case 5:
                other = draw(st.sampled_from(_SEEDS))
                data[at:] = other[draw(st.integers(0, len(other) - 1)) :]
    return bytes(data)


def _picture_or_refusal(data: bytes) -> None:
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        try:
            pixels(open_image(data))
            text = "a picture"
        except ImageError as error:
            text = str(error)
    assert text.isprintable()
    assert not re.search(r"0x[0-9a-f]{6,}|<.*object|PIL", text)
    assert not leaked, leaked[0].message


def _flipped(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed[: random.choice((len(changed), random.randrange(len(changed))))])


def _flip_and_open(times: int) -> None:
    random = Random(20261123)
    for _ in range(times):
        _picture_or_refusal(_flipped(random.choice(_SEEDS), random))


def test_two_thousand_flipped_files_are_pictures_or_refusals() -> None:
    _flip_and_open(2_000)


@pytest.mark.soak
def test_a_hundred_thousand_flipped_files_are_pictures_or_refusals() -> None:
    _flip_and_open(100_000)


@settings(max_examples=200, deadline=None)
@given(mutated_files())
def test_a_damaged_file_is_a_picture_or_a_refusal(data: bytes) -> None:
    _picture_or_refusal(data)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"GIF89a", b"RIFF\x20\0\0\0WEBP", b"BM"]), st.binary())
def test_any_bytes_are_a_picture_or_a_refusal(start: bytes, rest: bytes) -> None:
    _picture_or_refusal(start + rest)


def test_a_cutout_keeps_its_transparency(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((0, 0), (*RED, 51))
    for name, picture in (("colour", clear), ("palette", clear.quantize(4))):
        picture.save(tmp_path / f"{name}.png")
        opened = open_cutout(tmp_path / f"{name}.png")
        assert opened.mode == "RGBA"
        assert [alpha for *_, alpha in np.asarray(opened)[0].tolist()] == [51, 0]
    (tmp_path / "text.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"text\.png"):
        open_cutout(tmp_path / "text.png")
