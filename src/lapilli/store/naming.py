"""The one function that turns a model's name into its parts.

ModelName.parse("llava")                    # registry.ollama.ai/library/llava:latest
ModelName.parse("example.org/me/llava:7b").short
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lapilli.errors import InputError

HOST, NAMESPACE, TAG = "registry.ollama.ai", "library", "latest"

# Nothing that a part may be is a way up, a way out, or hidden: each begins with a letter, a digit or `_`.
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}", re.ASCII)
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}", re.ASCII)
_LONGEST = 1024


@dataclass(frozen=True)
class ModelName:
    """A model's name in full; two that differ in upper and lower case name the same model.

    `scheme` is how its registry is reached, and no part of the name.
    """

    host: str
    namespace: str
    model: str
    tag: str
    scheme: str = field(default="https", compare=False)

    def __post_init__(self) -> None:
        parts = ((_HOST, self.host), (_NAMESPACE, self.namespace), (_PART, self.model), (_PART, self.tag))
        if not all(isinstance(text, str) and rule.fullmatch(text) for rule, text in parts):
            raise InputError(INVALID)

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Read `[scheme://][host/][namespace/]model[:tag]`, filling in what Ollama would.

        Raises InputError, in the same words whatever is wrong.
        """
        if not isinstance(text, str) or not 0 < len(text) <= _LONGEST:
            raise InputError(INVALID)
        scheme, mark, rest = text.partition("://")
        if not mark:
            scheme, rest = "https", text
        elif scheme not in ("http", "https"):
            raise InputError(INVALID)
        *path, last = rest.split("/")
        model, mark, tag = last.partition(":")
        if len(path) > 2:
            raise InputError(INVALID)
        namespace = path.pop() if path else NAMESPACE
        host = path.pop() if path else HOST
        return cls(host, namespace, model, tag if mark else TAG, scheme)

    @property
    def short(self) -> str:
        """The name as it is shown: as short as can be, with its tag."""
        name = f"{self.model}:{self.tag}"
        if self.host.lower() != HOST:
            return f"{self.host}/{self.namespace}/{name}"
        return name if self.namespace.lower() == NAMESPACE else f"{self.namespace}/{name}"

    @property
    def path_parts(self) -> tuple[str, str, str, str]:
        """The names of the folders, and of the file, that a store keeps its manifest under."""
        return self.host, self.namespace, self.model, self.tag

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What two spellings of one name have in common."""
        return self.host.lower(), self.namespace.lower(), self.model.lower(), self.tag.lower()

    def __str__(self) -> str:
        return self.short


INVALID = "invalid model name"
