"""Picture files as their bytes describe them: format, size and orientation, before anything is decoded.

What Pillow gets to see is only the first picture, without the metadata that decoders have been attacked through.
Specifications: PNG (W3C), JPEG (ITU T.81), GIF89a, WebP (RFC 9649), BMP, and EXIF 3.0 for the orientation.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from lapilli.errors import ImageError

MAX_MEGAPIXELS = 64
MAX_SIDE = 65_535

# Far more blocks than any encoder writes, few enough to walk in a moment.
_MAX_BLOCKS = 100_000
_MAX_GIF_BLOCKS = 1_000_000
_MAX_JPEG_SEGMENTS = 10_000
_MAX_JPEG_SCANS = 100
# Pillow reads run-length coded BMP in Python, one run at a time.
_MAX_RLE_PIXELS = 4_000_000
_MAX_RLE_BYTES = 4 << 20
# The most that one byte of a deflate stream can stand for.
_DEFLATE_RATIO = 1032

_OTHERS = (
    (re.compile(rb"%PDF"), "a PDF document"),
    (re.compile(rb"II\*\0|MM\0\*"), "a TIFF picture"),
    (re.compile(rb"....ftyp(?:hei|mif|avif|avis)", re.DOTALL), "a HEIC or AVIF picture"),
    (re.compile(rb"....ftyp", re.DOTALL), "a video"),
    (re.compile(rb"\s*(?:<\?xml|<svg)"), "an SVG picture or another XML document"),
    (re.compile(rb"\s*<(?:!DOCTYPE|html)", re.IGNORECASE), "a web page"),
    (re.compile(rb"8BPS"), "a Photoshop document"),
    (re.compile(rb"\0\0\x01\0"), "an icon (ICO)"),
    (re.compile(rb"data:|[A-Za-z0-9+/]{32}"), "base64 text, which must be decoded first"),
)


@dataclass(frozen=True)
class Container:
    """One still picture: Pillow's name of its format, the bytes to decode, the EXIF orientation (1 to 8)."""

    format: str
    body: bytes
    orientation: int


def read_container(data: bytes) -> Container:
    """Tell the format of a file by its first bytes, check its size, and keep what is needed to decode one picture.

    Raises ImageError where the format is not PNG, JPEG, WebP, GIF or BMP, or the picture is past the limits.
    """
    if not data:
        raise ImageError("this is no picture: it is empty, 0 bytes")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _read_png(data)
    if data.startswith(b"\xff\xd8"):
        return _read_jpeg(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _read_gif(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _read_webp(data)
    if data.startswith(b"BM"):
        return _read_bmp(data)
    seen = next((name for start, name in _OTHERS if start.match(data[:1024])), None)
    said = f"it looks like {seen}" if seen else "its first bytes belong to no format that is read here"
    raise ImageError(f"this is no PNG, JPEG, WebP, GIF or BMP picture: {said}; give a PNG or JPEG")


def check_size(width: int, height: int) -> None:
    """Refuse a picture without pixels, or with more than are read. Raises ImageError."""
    if width < 1 or height < 1:
        raise ImageError(f"the picture has no pixels: it is {width} x {height}")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"the picture is {width} x {height}, a side may have {MAX_SIDE} pixels: make it smaller first")
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise ImageError(
            f"the picture is {width} x {height} = {width * height / 1e6:.1f} megapixels, "
            f"at most {MAX_MEGAPIXELS} are read: make it smaller first"
        )


def read_orientation(exif: bytes) -> int:
    """The orientation (1 to 8) that an EXIF block gives in its first directory; 1 where it gives none."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return 1
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    if start + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", exif, entry)
        if tag == 0x0112 and kind in (3, 4) and number == 1:
            (value,) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", exif, entry + 8)
            return value if 1 <= value <= 8 else 1
    return 1


def _read_png(data: bytes) -> Container:
    if len(data) < 33 or data[8:16] != b"\0\0\0\x0dIHDR":
        raise ImageError("the PNG file is damaged: it does not begin with its header")
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    check_size(width, height)
    pieces, position, orientation, compressed = [data[:33]], 33, 1, 0
    for _ in range(_MAX_BLOCKS):
        if position + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind == b"IDAT":
            compressed += length
        if kind == b"eXIf":
            orientation = read_orientation(data[position + 8 : end - 4])
        elif kind == b"tRNS" and length <= 256:
            pieces.append(_png_transparency(data[position:end], depth, colour))
        elif kind in (b"PLTE", b"IDAT", b"IEND"):
            pieces.append(data[position:end])
        position = end
        if kind == b"IEND":
            break
    else:
        raise ImageError(f"the PNG file has more than {_MAX_BLOCKS} blocks: save it anew")
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    if height * (width * depth * samples // 8) > min(compressed, len(data)) * _DEFLATE_RATIO:
        raise ImageError(f"the PNG file ends early: {len(data)} bytes cannot hold {width} x {height} pixels")
    return Container("PNG", b"".join(pieces), orientation)


def _png_transparency(block: bytes, depth: int, colour: int) -> bytes:
    """The block with its colour on the scale of the decoded picture: Pillow widens 2 and 4 bits and narrows 16."""
    values = [int.from_bytes(block[at : at + 2], "big") for at in range(8, len(block) - 4, 2)]
    if colour == 0 and depth in (2, 4):
        values = [value * 255 // (2**depth - 1) for value in values]
    elif colour == 2 and depth == 16:
        values = [value >> 8 for value in values]
    else:
        return block
    payload = b"tRNS" + struct.pack(f">{len(values)}H", *(min(value, 65535) for value in values))
    return struct.pack(">I", len(payload) - 4) + payload + struct.pack(">I", zlib.crc32(payload))


# A marker that ends a run of coded data: no stuffed zero, no restart, no fill byte.
_JPEG_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JFIF, _EXIF, _ADOBE, _START, _SCAN, _END = 0xE0, 0xE1, 0xEE, 0xD8, 0xDA, 0xD9


def _read_jpeg(data: bytes) -> Container:
    pieces, position, scans, sized = [data[:2]], 2, 0, False
    orientation: int | None = None
    seen: set[int] = set()
    for _ in range(_MAX_JPEG_SEGMENTS):
        found = _JPEG_MARKER.search(data, position)
        start = found.start() if found else len(data)
        if scans:
            pieces.append(data[position:start])
        if found is None or data[start + 1] == _END:
            pieces.append(data[start : start + 2])
            break
        marker = data[start + 1]
        if marker == _START:
            position = start + 2
            continue
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        if length < 2:
            raise ImageError("the JPEG file is damaged: one of its segments has no length")
        segment = data[start : start + 2 + length]
        position = start + len(segment)
        if marker in _JPEG_FRAMES and len(segment) >= 9:
            height, width = struct.unpack_from(">HH", segment, 5)
            check_size(width, height)
            sized = True
        elif marker == _EXIF and orientation is None and segment[4:10] == b"Exif\0\0":
            orientation = read_orientation(segment[4:])
        scans += marker == _SCAN
        if scans > _MAX_JPEG_SCANS:
            raise ImageError(f"the JPEG file has more than {_MAX_JPEG_SCANS} scans: save it anew")
        # JFIF and Adobe say how colours are coded; comments and all other applications' segments are left behind.
        if not 0xE0 <= marker <= 0xEF and marker != 0xFE:
            pieces.append(segment)
        elif marker in (_JFIF, _ADOBE) and marker not in seen:
            seen.add(marker)
            pieces.append(segment)
    else:
        raise ImageError(f"the JPEG file has more than {_MAX_JPEG_SEGMENTS} segments: save it anew")
    if not sized or not scans:
        raise ImageError("the JPEG file ends early: it holds no picture")
    return Container("JPEG", b"".join(pieces), orientation or 1)


def _read_gif(data: bytes) -> Container:
    if len(data) < 13:
        raise ImageError("the GIF file ends early: it has no header")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    check_size(width, height)
    position = 13 + _gif_palette(flags)
    header, control = data[:position], b""
    for _ in range(_MAX_BLOCKS):
        kind = data[position : position + 1]
        if kind == b"!":
            end = _skip_gif_blocks(data, position + 2)
            if data[position + 1 : position + 2] == b"\xf9":
                control = data[position:end]
            position = end
        elif kind == b"," and len(data) >= position + 10:
            left, top, columns, rows, flags = struct.unpack_from("<HHHHB", data, position + 1)
            check_size(max(width, left + columns), max(height, top + rows))
            end = _skip_gif_blocks(data, position + 11 + _gif_palette(flags))
            return Container("GIF", header + control + data[position:end] + b";", 1)
        else:
            raise ImageError("the GIF file holds no picture, or is damaged before its first one")
    raise ImageError(f"the GIF file has more than {_MAX_BLOCKS} blocks before its first picture: save it anew")


def _gif_palette(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_gif_blocks(data: bytes, position: int) -> int:
    for _ in range(_MAX_GIF_BLOCKS):
        if position >= len(data):
            return len(data)
        length = data[position]
        position += 1 + length
        if not length:
            return position
    raise ImageError(f"the GIF file has more than {_MAX_GIF_BLOCKS} blocks in its first picture: save it anew")


def _read_webp(data: bytes) -> Container:
    position, orientation, sized = 12, 1, False
    for _ in range(_MAX_BLOCKS):
        if position + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        head = data[position + 8 : position + 18]
        if kind == b"EXIF":
            orientation = read_orientation(data[position + 8 : position + 8 + length])
        elif len(head) == 10 and (size := _webp_size(kind, head)) is not None:
            check_size(*size)
            sized = True
        position += 8 + length + length % 2
    else:
        raise ImageError(f"the WebP file has more than {_MAX_BLOCKS} blocks: save it anew")
    if not sized:
        raise ImageError("the WebP file ends early: it holds no picture")
    return Container("WEBP", data, orientation)


def _webp_size(kind: bytes, head: bytes) -> tuple[int, int] | None:
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 6)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _read_bmp(data: bytes) -> Container:
    if len(data) < 34:
        raise ImageError("the BMP file ends early: it has no header")
    if int.from_bytes(data[14:18], "little") == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        packing = 0
    else:
        width, height, _, bits, packing = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)
    check_size(width, height)
    if packing in (1, 2):
        if width * height > _MAX_RLE_PIXELS or len(data) > _MAX_RLE_BYTES:
            raise ImageError(f"a run-length coded BMP of {width} x {height} is too large: save it as PNG")
    elif height * (width * bits // 8) > len(data):
        raise ImageError(f"the BMP file ends early: {len(data)} bytes cannot hold {width} x {height} pixels")
    return Container("BMP", data, 1)
