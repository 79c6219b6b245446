"""Pictures: the one door from bytes to a picture."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image

from lapilli.errors import ImageError
from lapilli.ground.files import open_regular
from lapilli.inputs.containers import check_size, read_container, read_orientation

MAX_BYTES = 64 << 20
BACKGROUND = (255, 255, 255)
"""The colour that shows through transparent pictures: white, as in the reference processors."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(source: bytes | str | os.PathLike[str] | Image.Image) -> Image.Image:
    """Open a picture from its bytes, from a file, or from a Pillow image; what comes back is plain RGB.

    PNG, JPEG, WebP, GIF and BMP are read, of animations the first picture; at most 64 MiB and 64 megapixels, checked
    before anything is decoded. The EXIF orientation is applied and transparency is laid on white (`BACKGROUND`).
    16 bits become 8 by scaling. Pillow images of floating point hold 0 to 1, or else 0 to 255; of 32-bit integers, 0 to
    255 or else 0 to 65535.

    Raises ImageError, in one line, where this cannot be done.
    """
    if isinstance(source, Image.Image):
        return _open_pillow(source)
    if isinstance(source, bytes):
        return _decode(source, _flatten)
    return _decode_file(source, _flatten)


def open_cutout(path: str | os.PathLike[str]) -> Image.Image:
    """Open a picture file and keep its transparency: RGBA, all else as `open_image` does it.

    Raises ImageError as `open_image` does.
    """
    return _decode_file(path, lambda image: image.convert("RGBA"))


def _decode_file(path: str | os.PathLike[str], plain: Callable[[Image.Image], Image.Image]) -> Image.Image:
    data = _read_file(path)
    try:
        return _decode(data, plain)
    except ImageError as error:
        raise ImageError(f"{_shown(path)}: {error}") from None


def _read_file(path: str | os.PathLike[str]) -> bytes:
    name = _shown(path)
    if name.startswith(("http://", "https://", "data:")):
        raise ImageError(f"{name}: a picture is opened from a file or from bytes, this is a URL: download it first")
    try:
        with open_regular(os.fspath(path)) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(MAX_BYTES + 1) if size <= MAX_BYTES else b""
    except OSError as error:
        raise ImageError(f"{name}: {error.strerror or 'cannot be read'}; give the path of a picture") from None
    except ValueError:
        raise ImageError(f"{name}: this is no file name; give the path of a picture") from None
    if max(size, len(data)) > MAX_BYTES:
        raise ImageError(f"{name}: {_too_long(max(size, len(data)))}")
    return data


def _shown(path: str | os.PathLike[str]) -> str:
    """The name as the caller gave it, short and on one line."""
    name = os.fspath(path)
    name = name if len(name) <= 200 else f"{name[:200]}…"
    return name if name and name.isprintable() else ascii(name)


def _too_long(size: int) -> str:
    return f"the picture takes {size} bytes, at most {MAX_BYTES} are read: make it smaller first"


def _decode(data: bytes, plain: Callable[[Image.Image], Image.Image]) -> Image.Image:
    if len(data) > MAX_BYTES:
        raise ImageError(_too_long(len(data)))
    container = read_container(data)
    try:
        # Never Pillow's own words below: they hold addresses and differ by version.
        with Image.open(BytesIO(container.body), formats=(container.format,)) as image:
            check_size(*image.size)
            image.load()
            return _upright(plain(image), container.orientation)
    except ImageError:
        raise
    except OSError as error:
        if "truncated" in str(error):
            raise ImageError(f"the {container.format} file ends early: part of the picture is missing") from None
        raise ImageError(_damaged(container.format)) from None
    except Exception:
        raise ImageError(_damaged(container.format)) from None


def _damaged(format: str) -> str:
    return f"the {format} file is damaged: its picture cannot be decoded; save it anew"


def _open_pillow(image: Image.Image) -> Image.Image:
    check_size(*image.size)
    exif = image.info.get("exif")
    try:
        image.load()
        return _upright(_flatten(image), read_orientation(exif) if isinstance(exif, bytes) else 1)
    except ImageError:
        raise
    except Exception:
        raise ImageError(
            "the Pillow image cannot be read: its file is damaged, or closed before it was loaded"
        ) from None


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _flatten(image: Image.Image) -> Image.Image:
    """A fresh RGB picture of any mode, without the metadata of the old one."""
    if image.mode.startswith("I;16"):
        image = _flatten_16_bit(image)
    elif image.mode in ("I", "F"):
        image = _flatten_numbers(image)
    elif image.mode == "La":
        image = image.convert("LA")
    elif image.mode == "LAB":
        raise ImageError("a picture of mode LAB has no RGB without a colour profile: convert it first")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (*BACKGROUND, 255)), rgba)
    plain = image.convert("RGB")
    plain.info = {}
    return plain


def _flatten_16_bit(image: Image.Image) -> Image.Image:
    grey_HW = np.asarray(image).astype(np.uint16)
    narrow_HW = (grey_HW >> 8).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        narrow_HW[grey_HW == clear] = BACKGROUND[0]
    return Image.fromarray(narrow_HW)


def _flatten_numbers(image: Image.Image) -> Image.Image:
    grey_HW = np.asarray(image).astype(np.float64)
    low, high = float(grey_HW.min()), float(grey_HW.max())
    ceilings = (1.0, 255.0) if image.mode == "F" else (255.0, 65535.0)
    ceiling = next((ceiling for ceiling in ceilings if low >= 0 and high <= ceiling), None)
    if ceiling is None:
        raise ImageError(
            f"a picture of mode {image.mode} must hold {ceilings[0]:g} or {ceilings[1]:g} at most and nothing below 0, "
            f"this one goes from {low:g} to {high:g}: scale it first"
        )
    return Image.fromarray(np.floor(grey_HW * (255 / ceiling) + 0.5).astype(np.uint8))
