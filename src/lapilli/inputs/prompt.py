"""Prompts: a conversation or a raw text as token ids, every picture already as long as it will be in the model.

From here on a picture is a run of placeholder ids of known length; nothing after this looks into text again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from lapilli.config import LlavaConfig
from lapilli.errors import PromptError
from lapilli.inputs.chat import Message, show
from lapilli.inputs.formats import Picture, Plain, Segment, Trusted
from lapilli.inputs.templates import IMAGE_TOKEN, ChatTemplate
from lapilli.inputs.tokenizer import Tokenizer

if TYPE_CHECKING:
    from PIL.Image import Image

    from lapilli.inputs.processor import ImageInput, ImageProcessor

_T = TypeVar("_T")


@dataclass(frozen=True)
class Prompt:
    """What the model reads: token ids, and the pictures whose features go where the placeholder ids stand.

    `spans` are the token ranges [begin, end) of what the assistant said, each with the token that ends its turn:
    the labels of training. They are found for conversations that are written out whole, without a cue at their end.
    """

    token_ids: list[int]
    images: tuple[ImageInput, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()


class PromptBuilder:
    """Builds prompts for one model, with its own tokenizer, image processor and chat template."""

    def __init__(
        self,
        config: LlavaConfig,
        tokenizer: Tokenizer,
        image_processor: ImageProcessor | None,
        chat_template: ChatTemplate,
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.chat_template = chat_template
        self._image_token = _spelling(tokenizer, config.image_token_id) if self.sees else None
        enders = [text for text, index in tokenizer.special_tokens.items() if index in tokenizer.eos_ids]
        self._closer = re.compile(rf"\s*(?:{'|'.join(map(re.escape, enders)) or '(?!)'})")

    @property
    def sees(self) -> bool:
        """Whether this model reads pictures."""
        return self.config.vision is not None and self.image_processor is not None

    def chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        options: Mapping[str, str | bool] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | str | None = None,
        suffix: str = "",
        template: ChatTemplate | None = None,
    ) -> Prompt:
        """The prompt of a conversation; what people wrote stays text, whatever it looks like.

        `template` takes the place of the model's own; the rest is as for `ChatTemplate.render`. Raises PromptError for
        pictures where the model reads none, and what that raises.
        """
        shown = [image for message in messages for image in message.images]
        self._require_sight(len(shown))
        segments = (template or self.chat_template).render(
            messages,
            add_generation_prompt=add_generation_prompt,
            image_token=self._image_token or IMAGE_TOKEN,
            options=options,
            tools=tools,
            think=think,
            suffix=suffix,
        )
        images = self._prepare(shown)
        prompt = self._prompt(segments, images)
        if add_generation_prompt:
            return prompt
        spans = (
            span
            for number, message in enumerate(messages)
            if message.role == "assistant"
            for span in self._spans(segments, images, prompt.token_ids, number)
        )
        return replace(prompt, spans=tuple(spans))

    def raw(self, text: str, images: Sequence[Any] = ()) -> Prompt:
        """The prompt of a text that is already in the model's own format: its special tokens count as such.

        `<image>`, and this model's own placeholder, stand for the pictures in order. `images` are paths, bytes,
        base64, `data:` URLs or opened pictures.

        Raises PromptError where nothing is asked, or placeholders and pictures differ in number.
        """
        if not text.strip() and not images:
            raise PromptError("the prompt is empty: ask something, or show a picture")
        self._require_sight(len(images))
        pieces = self._pieces(text)
        if len(pieces) - 1 != len(images):
            raise PromptError(
                f"the prompt has {len(pieces) - 1} placeholders {self._image_token or IMAGE_TOKEN}, "
                f"{len(images)} pictures were given: write one for each picture"
            )
        segments: list[Segment] = [Trusted(pieces[0])]
        for index, piece in enumerate(pieces[1:]):
            segments += [Picture(index), Trusted(piece)]
        return self._prompt(segments, self._prepare([show(source).image for source in images]))

    def count_placeholders(self, text: str) -> int:
        """How many pictures a raw text asks for."""
        return len(self._pieces(text)) - 1

    def _pieces(self, text: str) -> list[str]:
        """A raw text cut at its placeholders."""
        if not self.sees:
            return [text]
        return re.split("|".join({re.escape(token) for token in (IMAGE_TOKEN, self._image_token) if token}), text)

    def _prompt(self, segments: Sequence[Segment], images: Sequence[ImageInput]) -> Prompt:
        shown = tuple(images[segment.index] for segment in segments if isinstance(segment, Picture))
        return Prompt(self._encode(segments, images), shown)

    def _require_sight(self, count: int) -> None:
        if count and not self.sees:
            raise PromptError(f"this model reads text only, {count} pictures were given: leave them out")

    def _prepare(self, images: Sequence[Image]) -> tuple[ImageInput, ...]:
        assert self.image_processor is not None or not images
        return tuple(self.image_processor.prepare(image) for image in images) if self.image_processor else ()

    def _encode(self, segments: Sequence[Segment], images: Sequence[ImageInput]) -> list[int]:
        """The ids of segments as one text, begun once, each picture expanded.

        The tokenizer cuts at special tokens and pictures only, so that words merge across the joints between a
        template and what people wrote, as they did in training.
        """
        order = [segment.index for segment in segments if isinstance(segment, Picture)]
        pieces = list(self._encode_between_pictures(segments))
        if len(pieces) != len(order) + 1 or any(self.config.image_token_id in piece for piece in pieces):
            raise PromptError(f"the text spells {len(pieces) - 1} placeholders, {len(order)} pictures are shown")
        ids = list(pieces[0])
        for index, piece in zip(order, pieces[1:], strict=True):
            count = self.config.image_tokens(images[index].height, images[index].width)
            ids += [self.config.image_token_id] * count
            ids += piece
        bos = self.tokenizer.bos_id
        # A template that writes the beginning itself has written it.
        return [bos, *ids] if self.tokenizer.adds_bos and bos is not None and ids[:1] != [bos] else ids

    def _encode_between_pictures(self, segments: Sequence[Segment]) -> Iterator[list[int]]:
        if self._image_token is None:
            # This vocabulary has no word for a picture: what stands between two of them is a text of its own.
            for run in _split(segments, lambda segment: isinstance(segment, Picture)):
                yield self.tokenizer.encode_segments(_texts(run))
        else:
            ids = self.tokenizer.encode_segments(_texts(segments, self._image_token))
            yield from _split(ids, lambda token_id: token_id == self.config.image_token_id)

    def _spans(
        self, segments: Sequence[Segment], images: Sequence[ImageInput], ids: list[int], number: int
    ) -> Iterator[tuple[int, int]]:
        """The token range of what message `number` says, with the token that ends its turn where there is one."""
        places = [i for i, segment in enumerate(segments) if isinstance(segment, Plain) and segment.message == number]
        if not places:
            return
        before, said, after = list(segments[: places[0]]), segments[: places[-1] + 1], segments[places[-1] + 1 :]
        if before and isinstance(before[-1], Trusted):
            # A cue ends without the blank that words begin with: the model writes it.
            before[-1] = Trusted(before[-1].text.rstrip(" "))
        closing = self._closer.match(after[0].text) if after and isinstance(after[0], Trusted) else None
        if closing is not None:
            said = [*said, Trusted(closing[0])]
        begin, _ = self._covered(self._encode(before, images), ids)
        end, left = self._covered(self._encode(said, images), ids)
        # A last token that reaches into what the template wrote belongs to both.
        yield begin, end + (left > 0)

    def _covered(self, beginning: list[int], ids: list[int]) -> tuple[int, int]:
        """How many ids lie within a beginning of their text that was encoded by itself, and how many bytes are left."""
        count = next((i for i, (a, b) in enumerate(zip(beginning, ids, strict=False)) if a != b), len(beginning))
        left = sum(len(self.tokenizer.token_bytes(index, skip_special=False)) for index in beginning[count:])
        while left > 0 and (size := len(self.tokenizer.token_bytes(ids[count], skip_special=False))) <= left:
            left -= size
            count += 1
        return count, left


def _spelling(tokenizer: Tokenizer, token_id: int) -> str | None:
    """How this vocabulary writes the token, None where no text of a template becomes it."""
    known = [IMAGE_TOKEN, *(text for text, index in tokenizer.special_tokens.items() if index == token_id)]
    return next((text for text in known if tokenizer.encode(text, special=True) == [token_id]), None)


def _texts(segments: Sequence[Segment], image_token: str = "") -> list[tuple[str, bool]]:
    """What the tokenizer reads: texts, and whether they are trusted."""
    return [
        (image_token, True) if isinstance(segment, Picture) else (segment.text, isinstance(segment, Trusted))
        for segment in segments
    ]


def _split(items: Sequence[_T], ends: Callable[[_T], bool]) -> Iterator[list[_T]]:
    """The runs between the items that end one; those items are left out."""
    begin = 0
    for place, item in enumerate(items):
        if ends(item):
            yield list(items[begin:place])
            begin = place + 1
    yield list(items[begin:])
