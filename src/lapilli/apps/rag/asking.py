"""One question, from what is found to what is said: search, lay the passages into a prompt that fits, ask, check."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lapilli.apps.backend.call import Backend, Call
from lapilli.apps.embedders import Embedder
from lapilli.apps.rag.answering import (
    NOT_FOUND,
    Quote,
    Shown,
    Turn,
    admits,
    best_quote,
    cited,
    prompt_messages,
    prompt_text,
)
from lapilli.apps.rag.cited import Citation, Cited
from lapilli.apps.rag.config import LlmOptions
from lapilli.apps.rag.document import Document
from lapilli.apps.rag.store import Hit, PassageStore, search
from lapilli.apps.rag.words import overlap, points_back, words_of
from lapilli.errors import InputError, PromptError
from lapilli.inputs.chat import ImagePart, Message, show

# A question that the documents answer has a passage with half of its words, or one whose vector is near; see
# bench/refusal_bench.py for how many others have, too.
_BY_WORDS, _NEAR = 0.5, 0.35
_ALL_BY_WORDS = 1 / 3  # the share where words are all there is to go by
_PICTURES = 3  # pictures shown again in one prompt
_LETTERS, _PICTURE_TOKENS = 2.5, 600  # of a token, and of a picture, at a server that does not count
_LEAST_ROOM = 64  # tokens that an answer needs
_DESCRIBE = "What is in this picture?"
_DESCRIPTION_TOKENS = 200


def find(
    store: PassageStore, embedder: Embedder | None, query: str, count: int, where: Mapping[str, Any] | None
) -> list[Hit]:
    """The passages that fit a query best, best first. Raises InputError for an empty one."""
    if not query.strip():
        raise InputError("the question is empty")
    vector_D = None if embedder is None or store.size is None else embedder.embed([query], query=True)[0]
    return search(store, query, vector_D=vector_D, count=count, where=where)


def describe(backend: Backend, picture: bytes) -> str:
    """What the model sees in a picture; raises InputError where it cannot look at any."""
    if not backend.sees:
        raise InputError(f"{backend.name} takes no pictures: add pictures with a model that does, such as mini")
    return backend.ask(Call.of(_DESCRIBE, [picture], max_tokens=_DESCRIPTION_TOKENS)).text.strip()


@dataclass(frozen=True)
class Laid:
    """The passages that are shown, and the call that shows them."""

    shown: tuple[Shown, ...]
    call: Call
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Asking:
    """One question of an App. `quoting`: the model cannot read passages, so that the answer is a quotation."""

    question: str
    options: LlmOptions
    store: PassageStore
    embedder: Embedder | None
    backend: Callable[[], Backend]
    turns: Sequence[Turn] = ()
    quoting: bool = False

    def pieces(self, *, streamed: bool) -> Generator[str, None, Cited]:
        """The answer in pieces, and at the end the whole of it."""
        if not self.hits:
            yield NOT_FOUND
            return Cited(text=NOT_FOUND, found=False)
        quote = best_quote(self._sought, self._shown) if self.quoting else None
        looked = self._picture_for(quote) if self.quoting else None
        if self.quoting and (looked is None or not self.backend().sees):
            return (yield from self._quoted(quote))
        backend = self.backend()
        laid = self._laid(backend) if looked is None else self._looked_at(looked)
        counts: dict[str, int] = {}
        text = yield from (_streamed(backend, laid.call) if streamed else _asked(backend, laid.call, counts))
        # Who looked at one picture alone has it from there.
        numbers = cited(text, self.question, laid.shown) if looked is None else [looked.number]
        citations = () if admits(text) else self._citations(numbers)
        return Cited(
            text=text,
            citations=citations,
            found=bool(text) and not admits(text),
            hits=tuple(self.hits),
            prompt=prompt_text(laid.call.messages),
            notes=laid.notes,
            **counts,
        )

    @property
    def prompt(self) -> str:
        """What the model would be asked."""
        laid = self._lay(self._shown, tuple(self.turns)) if self.quoting else self._laid(self.backend()).call.messages
        return prompt_text(laid)

    @property
    def _sought(self) -> str:
        """What is looked for: the question, after the one before where it points back to it."""
        if self.turns and points_back(self.question):
            return f"{self.turns[-1].question}\n{self.question}"
        return self.question

    @cached_property
    def hits(self) -> list[Hit]:
        """The passages that have to do with the question."""
        asked = self._sought
        found = find(self.store, self.embedder, asked, self.options.number_documents, self.options.where)
        found = [hit for hit in found if self._is_there(hit)]
        wanted = words_of(asked)
        shares = [overlap(wanted, self._words_of(hit)) for hit in found]
        back = asked != self.question
        enough = _ALL_BY_WORDS if self.embedder is None else _BY_WORDS
        if not wanted or max(shares, default=0.0) >= (0.01 if back else enough):
            return [hit for hit, share in zip(found, shares, strict=True) if share or not wanted]
        return self._near(asked, found)

    def _words_of(self, hit: Hit) -> str:
        return f"{self._document(hit).title} {hit.passage.text}"

    def _near(self, asked: str, hits: Sequence[Hit]) -> list[Hit]:
        """The passages that mean something close to the question, in other words."""
        if self.embedder is None or not hits:
            return []
        question_D = self.embedder.embed([asked], query=True)[0]
        passages_ND = self.embedder.embed([hit.passage.text for hit in hits])
        return [hit for hit, near in zip(hits, passages_ND @ question_D, strict=True) if near >= _NEAR]

    def _picture_for(self, quote: Quote | None) -> Shown | None:
        """The picture to look at: the one that the best words are about, or where no words fit, the first hit."""
        best = self._shown[0 if quote is None else quote.number - 1]
        return best if best.picture is not None else None

    @cached_property
    def _documents(self) -> dict[str, Document]:
        return {}

    def _is_there(self, hit: Hit) -> bool:
        try:
            return bool(self._document(hit))
        except InputError:
            return False  # removed since it was found

    def _document(self, hit: Hit) -> Document:
        source = hit.passage.source
        if source not in self._documents:
            self._documents[source] = self.store.document(source)
        return self._documents[source]

    @cached_property
    def _shown(self) -> tuple[Shown, ...]:
        """All that was found, numbered, pictures opened."""
        left = _PICTURES
        found = []
        for number, hit in enumerate(self.hits, 1):
            document = self._document(hit)
            picture: ImagePart | None = None
            if hit.passage.picture and document.picture is not None and left:
                picture, left = show(document.picture, paths=False), left - 1
            heading = ", ".join(part for part in (document.title, hit.passage.label) if part)
            found.append(Shown(number=number, text=hit.passage.text, heading=heading, picture=picture))
        return tuple(found)

    def _lay(self, shown: Sequence[Shown], turns: Sequence[Turn]) -> tuple[Message, ...]:
        return prompt_messages(
            self.question, shown, turns=turns, system=self.options.system_prompt, instructions=self.options.instructions
        )

    def _laid(self, backend: Backend) -> Laid:
        """The prompt that fits: earlier turns are left out first, then the passages that fit least, and it is said."""
        shown = self._shown
        if not backend.sees:
            shown = tuple(dataclasses.replace(passage, picture=None) for passage in shown)
        turns = tuple(self.turns)
        while True:
            call = self._call(self._lay(shown, turns), self.options.max_tokens)
            used = 0 if backend.context is None else _tokens(backend, call)
            room = None if backend.context is None else backend.context - used
            if room is None or room >= min(_LEAST_ROOM, self.options.max_tokens):
                break
            if turns:
                turns = turns[1:]
            elif len(shown) > 1:
                shown = shown[:-1]
            else:
                raise PromptError(
                    f"a prompt with one passage takes {used} tokens, the context of {backend.name} is "
                    f"{backend.context}: take a smaller chunk_size, or another model"
                )
        longest = self.options.max_tokens if room is None else min(self.options.max_tokens, room)
        left_out = [
            (len(self.turns) - len(turns), "earlier turns"),
            (len(self._shown) - len(shown), "passages"),
        ]
        notes = tuple(f"{count} {what} left out: the context has no room" for count, what in left_out if count)
        return Laid(shown, dataclasses.replace(call, max_tokens=longest), notes)

    def _looked_at(self, picture: Shown) -> Laid:
        """The question alone, beside the picture that was found for it."""
        assert picture.picture is not None, "it was chosen for its picture"
        messages = Call.of(self.question, [picture.picture.image]).messages
        return Laid((picture,), self._call(messages, self.options.max_tokens))

    def _call(self, messages: tuple[Message, ...], longest: int) -> Call:
        told = self.options
        return Call(
            messages=messages, max_tokens=longest, temperature=float(told.temperature), top_p=float(told.top_p),
            seed=told.seed,
        )  # fmt: skip

    def _quoted(self, quote: Quote | None) -> Generator[str, None, Cited]:
        """The sentence of the passages that fits best, word for word."""
        if quote is None:
            yield NOT_FOUND
            return Cited(text=NOT_FOUND, found=False, hits=tuple(self.hits))
        text = f"{' '.join(quote.text.split())} [{quote.number}]"
        yield text
        return Cited(
            text=text, citations=self._citations([quote.number], quote.start, quote.end), hits=tuple(self.hits)
        )

    def _citations(self, numbers: Sequence[int], start: int = 0, end: int | None = None) -> tuple[Citation, ...]:
        return tuple(self._checked(numbers, start, end))

    def _checked(self, numbers: Sequence[int], start: int, end: int | None) -> Iterator[Citation]:
        """The citations whose words stand in the document where they are said to stand."""
        for number in numbers:
            hit = self.hits[number - 1]
            passage = hit.passage
            try:
                document = self.store.document(passage.source)  # anew: it may have been replaced while this was asked
            except InputError:
                continue
            if document.text[passage.start : passage.end] != passage.text:
                continue
            text = passage.text[start:end]
            yield Citation(
                number=number, source=passage.source, start=passage.start + start,
                end=passage.start + start + len(text), text=text, title=document.title, label=passage.label,
                picture=passage.picture, score=hit.score,
            )  # fmt: skip


def _tokens(backend: Backend, call: Call) -> int:
    """How many tokens a prompt has; where a server does not tell, rather too many than too few."""
    counted = backend.count(call)
    if counted is not None:
        return counted
    letters = sum(len(message.text) for message in call.messages)
    return int(letters / _LETTERS) + _PICTURE_TOKENS * sum(len(message.images) for message in call.messages)


def _asked(backend: Backend, call: Call, counts: dict[str, int]) -> Generator[str, None, str]:
    reply = backend.ask(call)
    counts.update(prompt_tokens=reply.prompt_tokens, tokens=reply.tokens)
    text = reply.text.strip()
    yield text
    return text


def _streamed(backend: Backend, call: Call) -> Generator[str, None, str]:
    """The pieces of an answer without the blanks around it, so that they joined are the answer."""
    text = held = ""
    for piece in backend.stream(call):
        held += piece
        ready = held.rstrip() if text else held.strip()
        if ready:
            held = held[len(held.rstrip()) :]
            text += ready
            yield ready
    return text
