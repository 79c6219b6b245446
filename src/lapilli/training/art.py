"""The material that pictures are made of, loaded once: small pictures of things, typefaces, words, noise."""

from __future__ import annotations

import json
import os
import string
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageFont, ImageOps

from lapilli.errors import TrainingError
from lapilli.inputs.images import open_cutout
from lapilli.training.names import COLOURS, SHAPES, held_out, thing_names

Floats = npt.NDArray[np.float32]

LETTERS = string.ascii_letters
FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts", "/Library/Fonts")
GLYPH_SIZES = (17, 20, 24, 28, 34, 40, 48, 58, 70)

# Faces without plain Latin letters, or with strokes too thin to be read at these sizes.
_UNREADABLE = (
    "z003",
    "d050000l",
    "symbol",
    "initials",
    "keyboard",
    "hairline",
    "thin",
    "math",
    "emoji",
    "swash",
    "script",
)
_LATIN_NOTO = ("NotoSans-", "NotoSerif-", "NotoSansDisplay-", "NotoSerifDisplay-", "NotoSansMono-", "NotoMono-")
# Families that draw the same letters under another name.
_SAME_FAMILY = {
    "arimo": "liberation sans",
    "tinos": "liberation serif",
    "cousine": "liberation mono",
    "carlito": "lato",
}
_WIDTHS_AND_WEIGHTS = frozenset(
    ("light", "medium", "semibold", "bold", "black", "condensed", "narrow", "display", "mono", "two", "beta", "o")
)


@dataclass(frozen=True)
class Glyph:
    """One letter: its coverage, where its ink starts from the pen on the baseline, and how far the pen moves on."""

    mask_HW: npt.NDArray[np.uint8]
    left: int
    top: int
    advance: float


@dataclass(frozen=True)
class Typeface:
    """A font file, or Pillow's built-in font where `path` is None."""

    path: str | None
    family: str
    held_out: bool

    def glyphs(self, size: int) -> dict[str, Glyph]:
        """The letters A-Z and a-z at one of `GLYPH_SIZES`."""
        return _glyphs(self.path, size)


@lru_cache(maxsize=2560)
def _glyphs(path: str | None, size: int) -> dict[str, Glyph]:
    font = _font(path, size)
    glyphs = {}
    for letter in LETTERS:
        mask, (left, top) = font.getmask2(letter, mode="L", anchor="ls")
        pixels = np.frombuffer(bytes(mask), np.uint8).reshape(mask.size[::-1])
        glyphs[letter] = Glyph(pixels, int(left), int(top), font.getlength(letter))
    return glyphs


def _font(path: str | None, size: int) -> ImageFont.FreeTypeFont:
    if path is None:
        font = ImageFont.load_default(size)
        if not isinstance(font, ImageFont.FreeTypeFont):
            raise TrainingError("this Pillow has no FreeType: install a Pillow wheel from PyPI to draw words")
        return font
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@dataclass(frozen=True)
class Sprite:
    """A small picture of a thing in one style, 72 x 72, alpha premultiplied."""

    image: Image.Image
    style: str
    seed: int

    @cached_property
    def half(self) -> Image.Image:
        return self.image.resize((36, 36), Image.Resampling.BOX)

    @cached_property
    def tone(self) -> tuple[float, float, float]:
        """The mean colour of what it covers, RGB in 0..255."""
        pixels = np.asarray(self.image, np.float32).reshape(-1, 4).sum(0)
        red, green, blue = (pixels[:3] * 255 / max(float(pixels[3]), 1)).tolist()
        return red, green, blue

    @cached_property
    def looks(self) -> tuple[tuple[Image.Image, Image.Image], ...]:
        """The sprite and variants of it (shaded as if solid, without outlines, ...), each at full and half size."""
        straight = self.image.convert("RGBA")
        rng = np.random.default_rng(self.seed)
        looks = [self.image, self.image, *(_look(straight, rng).convert("RGBa") for _ in range(6))]
        return tuple((look, look.resize((36, 36), Image.Resampling.BOX)) for look in looks)


def _look(sprite: Image.Image, rng: np.random.Generator) -> Image.Image:
    """One variant: perhaps fewer colours, perhaps no outline, mostly lit like a solid, glossy body."""
    colours, alpha = sprite.convert("RGB"), sprite.getchannel("A")
    if rng.random() < 0.45:  # dark, thin lines go
        colours = colours.filter(ImageFilter.MaxFilter(3)).filter(ImageFilter.MedianFilter(3))
    elif rng.random() < 0.3:
        colours = ImageOps.posterize(colours, 3)
    if rng.random() < 0.35:
        colours = colours.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.6, 1.6))))
    if rng.random() < 0.85:
        colours = _lit(colours, alpha, rng)
    if rng.random() < 0.3:
        colours = ImageEnhance.Color(colours).enhance(float(rng.uniform(0.5, 1.5)))
    return Image.merge("RGBA", (*colours.split(), alpha))


def _lit(colours: Image.Image, alpha: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Light falling on the sprite as if it, and each of its patches of colour, bulged towards the eye."""
    body = ImageChops.multiply(alpha, alpha.filter(ImageFilter.GaussianBlur(float(rng.uniform(4, 9)))))
    patches = ImageOps.autocontrast(colours.convert("L")).filter(ImageFilter.GaussianBlur(float(rng.uniform(1.5, 3))))
    height = np.asarray(body, np.float32) * rng.uniform(0.05, 0.12) + np.asarray(patches, np.float32) * rng.uniform(
        -0.02, 0.05
    )
    slope_y, slope_x = np.gradient(height)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    angle, tilt = rng.uniform(-2.6, -0.5), rng.uniform(0.4, 0.8)
    light = (-slope_x * np.cos(angle) - slope_y * np.sin(angle)) / length * tilt + (1 / length) * (1 - tilt)
    light = np.maximum((light - (1 - tilt)) * rng.uniform(0.6, 1.3), -0.4)
    lit = np.asarray(colours, np.float32) * (1 + light[..., None])
    gloss = np.clip(light - rng.uniform(0.1, 0.3), 0, 1) * rng.uniform(0, 260)
    return Image.fromarray(np.clip(lit + gloss[..., None], 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Thing:
    """An everyday thing: its name and its pictures, one a style."""

    name: str
    sprites: tuple[Sprite, ...]


@dataclass(frozen=True)
class Words:
    """Words of 1 to 8 letters, small letters only."""

    common: tuple[str, ...]
    rare: tuple[str, ...]


@dataclass(frozen=True)
class Art:
    """Everything that drawing needs. The same data folder and fonts give the same pictures for the same seed."""

    things: tuple[Thing, ...]
    typefaces: tuple[Typeface, ...]
    words: Words
    noise_HWC: Floats = field(repr=False)

    @classmethod
    def load(
        cls,
        data: Path | None,
        styles: Sequence[str] = ("noto", "twemoji"),
        fonts: Sequence[Path] | None = None,
    ) -> Art:
        """Load sprites from `data/emoji/<style>` and words from `data/text`; no folder leaves shapes and a few words.

        `fonts` are font files; without it, those of the system that have readable Latin letters. Raises `TrainingError`
        where the folder lacks a style or one of the names that `mini` knows.
        """
        noise = np.random.default_rng(7).standard_normal((256, 256, 3)).astype(np.float32)
        found = system_fonts() if fonts is None else fonts
        typefaces = [face for path in found if (face := _typeface(path)) is not None]
        typefaces.append(Typeface(None, "aileron", True))
        things = () if data is None else _things(data, styles)
        return cls(things, tuple(typefaces), _words(data), noise)

    def faces(self, split: str) -> tuple[Typeface, ...]:
        """The typefaces of a split; where the system has none to train on, the built-in one serves both."""
        return self._faces[split == "test"] or self.typefaces

    @cached_property
    def _faces(self) -> tuple[tuple[Typeface, ...], tuple[Typeface, ...]]:
        kept = tuple(face for face in self.typefaces if not face.held_out)
        return kept, tuple(face for face in self.typefaces if face.held_out)


def system_fonts() -> list[Path]:
    """The TrueType and OpenType files of this system that look like plain Latin text, sorted."""
    found: set[Path] = set()
    for folder in FONT_FOLDERS:
        for root, _, names in os.walk(Path(folder).expanduser()):
            found.update(Path(root, name) for name in names if name.lower().endswith((".ttf", ".otf")))
    return sorted(path for path in found if not path.name.startswith("Noto") or path.name.startswith(_LATIN_NOTO))


def _typeface(path: Path) -> Typeface | None:
    try:
        font = _font(str(path), 20)
        family, style = font.getname()
        marks = {bytes(font.getmask(letter)) for letter in "AaBbQqg"}
    except OSError:
        return None
    name = f"{family} {style} {path.stem}".lower()
    if len(marks) < 7 or not all(marks) or any(word in name for word in _UNREADABLE):
        return None
    words = [word for word in (family or path.stem).lower().split() if word not in _WIDTHS_AND_WEIGHTS]
    group = " ".join(words)
    group = _SAME_FAMILY.get(group, group)
    return Typeface(str(path), group, held_out("font", group, percent=15))


def _things(data: Path, styles: Sequence[str]) -> tuple[Thing, ...]:
    folder = Path(data) / "emoji"
    if not (folder / "concepts.json").is_file():
        raise TrainingError(f"no emoji/concepts.json in {data}: give the folder that holds emoji/ and text/")
    concepts = json.loads((folder / "concepts.json").read_text(encoding="utf-8"))
    ids = {concept["name"]: concept["id"] for concept in concepts}
    missing = [name for name in thing_names() if name not in ids]
    if missing:
        raise TrainingError(
            f"emoji/concepts.json lacks {len(missing)} of {len(thing_names())} names, the first: {missing[0]}"
        )
    things = []
    for index, name in enumerate(thing_names()):
        sprites = []
        for number, style in enumerate(styles):
            path = folder / style / f"{ids[name]}.png"
            if not path.is_file():
                raise TrainingError(f"no picture of {name!r} in the style {style!r}: {data} lacks {style}/{path.name}")
            sprites.append(Sprite(_squared(open_cutout(path)), style, index * 16 + number))
        things.append(Thing(name, tuple(sprites)))
    return tuple(things)


def _squared(sprite: Image.Image) -> Image.Image:
    if sprite.size != (72, 72):
        sprite = ImageOps.pad(sprite, (72, 72), Image.Resampling.BICUBIC, color=(0, 0, 0, 0))
    return sprite.convert("RGBa")


def _words(data: Path | None) -> Words:
    own = {word for name in (*thing_names(), *COLOURS, *SHAPES) for word in name.lower().split()}
    common, rare = own, own
    path = None if data is None else Path(data) / "text" / "nltk_words.zip"
    if path is not None and path.is_file():
        with zipfile.ZipFile(path) as archive:
            common = common | set(archive.read("words/en-basic").decode("ascii", "ignore").lower().split())
            rare = set(archive.read("words/en").decode("ascii", "ignore").split())
    return Words(*(tuple(sorted(word for word in words if _fits(word))) for words in (common, rare)))


def _fits(word: str) -> bool:
    return 1 <= len(word) <= 8 and word.isascii() and word.isalpha() and word.islower()
