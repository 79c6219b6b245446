"""The child's side of a chat template: Jinja, sandboxed, with the settings that transformers gives it.

Only `lapilli.ground.child` runs this: a template is a stranger's program, and no sandbox bounds its time or memory.
Jinja is imported here at once, before the child says it is ready: a cold disk does not eat into a template's time.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import nodes, pass_environment
from jinja2.exceptions import SecurityError
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_attr
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace


def render_jinja(request: dict[str, Any]) -> dict[str, Any]:
    """Compile and run a template; the answer holds its `text`, or its `error` and whether it `said` so itself.

    A request holds the `source`, the `variables`, and the `limit` of characters.
    """
    try:
        written, size = [], 0
        for piece in _compile(request["source"])(request["variables"]):
            written.append(piece)
            size += len(piece)
            if size > request["limit"]:
                return {"error": f"it writes more than {request['limit']} characters", "said": False}
        return {"text": "".join(written)}
    except MemoryError:
        raise
    except jinja2.TemplateError as error:
        said = type(error) is jinja2.TemplateError
        return {"error": _one_line(error if said else f"{type(error).__name__}: {error}"), "said": said}
    except Exception as error:
        return {"error": _one_line(f"{type(error).__name__}: {error}"), "said": False}


def _one_line(text: object) -> str:
    # Marks are a run of 49 digits; nobody wants to read them.
    return " ".join(re.sub(r"\d{49}", "", str(text)).split())[:300]


def _is_inner(name: object) -> bool:
    return isinstance(name, str) and name.startswith("__")


@functools.lru_cache(maxsize=16)
def _compile(source: str) -> Callable[[Mapping[str, Any]], Iterator[str]]:
    class Sandbox(ImmutableSandboxedEnvironment):
        """Refuses at once what the library would only leave out."""

        def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
            raise SecurityError(f"a template may not reach {str(attribute)[:40]!r}")

        def getattr(self, obj: Any, attribute: str) -> Any:
            return self.unsafe_undefined(obj, attribute) if _is_inner(attribute) else super().getattr(obj, attribute)

        def getitem(self, obj: Any, argument: Any) -> Any:
            return self.unsafe_undefined(obj, argument) if _is_inner(argument) else super().getitem(obj, argument)

    @pass_environment
    def attr(environment: Sandbox, obj: Any, name: str) -> Any:
        return environment.unsafe_undefined(obj, name) if _is_inner(name) else do_attr(environment, obj, name)

    class Generation(Extension):
        """`{% generation %}` marks an assistant's words in some templates; it writes nothing itself."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return [nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True))]

    class MakeDict:
        """The builtin `dict`, without being the class itself."""

        def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
            return dict(*args, **kwargs)

        def fromkeys(self, keys: Any, value: Any = None) -> dict[Any, Any]:
            return dict.fromkeys(keys, value)

    class Names(Namespace):
        """A namespace whose names cannot begin with an underscore."""

        def __init__(*args: Any, **kwargs: Any) -> None:
            self, *rest = args
            Namespace.__init__(self)
            for name, value in dict(*rest, **kwargs).items():
                self[name] = value

        def __setitem__(self, name: str, value: Any) -> None:
            if str(name).startswith("_"):
                raise SecurityError(f"a template may not set {str(name)[:40]!r}")
            Namespace.__setitem__(self, name, value)

    def raise_exception(message: object) -> None:
        raise JinjaError(str(message))

    def strftime_now(form: str) -> str:
        from datetime import datetime

        return datetime.now().strftime(form)

    def to_json(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters.update(tojson=to_json, attr=attr)
    environment.globals.update(
        raise_exception=raise_exception, strftime_now=strftime_now, namespace=Names, dict=MakeDict()
    )
    # Filler text, and nothing else in the wild but a known way out of sandboxes.
    del environment.globals["lipsum"]
    template = environment.from_string(source)
    return lambda variables: template.generate({"tools": None, "documents": None, **variables})
