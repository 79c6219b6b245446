"""One model as the store knows it: where its files lie, and all that can be told without loading it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from lapilli.checkpoints.objects import read_object
from lapilli.errors import InputError, StoreError, TemplateError
from lapilli.ground.amounts import count_text
from lapilli.ground.files import open_regular
from lapilli.inputs.templates import TemplateText, template_abilities
from lapilli.store.description import Header, read_header
from lapilli.store.manifests import CONFIG, LICENSE, MESSAGES, PARAMETERS, PROMPT, SYSTEM, TEMPLATE
from lapilli.store.modelfile import ROLES, Modelfile, parameters_text

NEEDS = ("renderer", "parser", "requires")
_MAX_TEXT = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Package:
    """A model: `model` is a GGUF file with its `projector`, or a checkpoint folder; `adapters` are LoRA folders.

    `digest` is the hash of its manifest (64 hex digits), or of what a folder holds; `blobs` are the files of its
    smaller parts by media type. All else is read when it is asked for: StoreError for a damaged part, CheckpointError
    for files that are no model.
    """

    name: str
    digest: str
    size: int
    modified: datetime
    model: Path
    projector: Path | None = None
    adapters: tuple[Path, ...] = ()
    blobs: Mapping[str, tuple[Path, ...]] = field(default_factory=dict, repr=False)

    @cached_property
    def template(self) -> TemplateText | None:
        """The template beside the weights; None where the model's own counts."""
        texts = self._texts(TEMPLATE) or self._texts(PROMPT)
        return TemplateText.of(texts[-1]) if texts else None

    @property
    def chat_template(self) -> TemplateText:
        """The template that counts: the one beside the weights, else the model's own."""
        return self.template or TemplateText(language="jinja", text=self.header.template)

    @cached_property
    def system(self) -> str:
        """What the model is told first where nobody says otherwise."""
        return "\n".join(self._texts(SYSTEM))

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """The options it wants to be asked with; a folder's makers may want it never to draw (`do_sample`)."""
        found = usual_parameters(self.model) if self.model.is_dir() else {}
        for values in self._json(PARAMETERS, dict):
            found |= values
        return found

    @cached_property
    def messages(self) -> tuple[dict[str, str], ...]:
        """The conversation that every conversation with it goes on from: role and content."""
        turns = [turn for values in self._json(MESSAGES, list) for turn in values]
        for turn in turns:
            if not isinstance(turn, dict) or turn.get("role") not in ROLES or not isinstance(turn.get("content"), str):
                raise StoreError(f"{self.name}: its messages are damaged: pull or create it again")
        return tuple({"role": turn["role"], "content": turn["content"]} for turn in turns)

    @cached_property
    def license(self) -> tuple[str, ...]:
        """The texts of its licences."""
        if self.model.is_dir() and not self.blobs:
            names = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE")
            return tuple(_read(self.model / name, self.name) for name in names if (self.model / name).is_file())
        return tuple(self._texts(LICENSE))

    @cached_property
    def header(self) -> Header:
        """What the weights' own header says."""
        return read_header(self.model)

    @cached_property
    def eyes(self) -> Header | None:
        """What the projector's header says."""
        return None if self.projector is None else read_header(self.projector)

    @cached_property
    def details(self) -> dict[str, Any]:
        """parent_model, format, family, families, parameter_size, quantization_level."""
        told: dict[str, Any] = next(iter(self._json(CONFIG, dict)), {})
        family, families = told.get("model_family"), told.get("model_families")
        size, level = told.get("model_type"), told.get("file_type")
        if not all(isinstance(value, str) and value for value in (family, size, level)):
            family, size, level = self.header.architecture, count_text(self.header.parameters), self.header.file_type
        if not isinstance(families, list) or not all(isinstance(item, str) for item in families):
            families = [family, *(["clip"] if self.projector is not None or self.header.sees else [])]
        kind = told.get("model_format")
        return {
            "parent_model": "",
            "format": kind if isinstance(kind, str) and kind else "safetensors" if self.model.is_dir() else "gguf",
            "family": family,
            "families": families,
            "parameter_size": size,
            "quantization_level": level,
        }

    @cached_property
    def needs(self) -> dict[str, str]:
        """What its Modelfile said of who can run it: renderer, parser, requires. Kept and shown, of no effect here."""
        told: dict[str, Any] = next(iter(self._json(CONFIG, dict)), {})
        return {name: told[name] for name in NEEDS if isinstance(told.get(name), str) and told[name]}

    @cached_property
    def capabilities(self) -> tuple[str, ...]:
        """What it can be asked for: completion or embedding, vision, tools, insert, thinking."""
        if self.header.embeds:
            return ("embedding",)
        found = ["completion"]
        if self.projector is not None or self.header.sees:
            found.append("vision")
        template = self.chat_template
        with contextlib.suppress(TemplateError):
            able = template_abilities(template.language, template.text)
            named = {"tools": able.uses_tools, "insert": able.inserts, "thinking": able.thinks}
            found += [ability for ability, has in named.items() if has]
        return tuple(found)

    def modelfile(self) -> str:
        """A Modelfile that makes this model again."""
        named: dict[str, Any] = {
            "template": self.template.text if self.template else None,
            "system": self.system or None,
            "parameters": self.parameters,
            "messages": tuple((turn["role"], turn["content"]) for turn in self.messages),
            "licenses": self.license,
            **self.needs,
        }
        head = f'# Modelfile generated by "lapilli show"\n# To build upon this model: FROM {self.name}\n\n'
        try:
            return head + Modelfile(sources=(self.name,), **named).render()
        except InputError as error:
            return f"{head}# {error}\n{Modelfile(sources=(self.name,)).render()}"

    def show(self, verbose: bool = False) -> dict[str, Any]:
        """What `show` tells; lists of more than five values are empty unless `verbose`."""
        eyes = self.header.shown_eyes(verbose) if self.eyes is None else self.eyes.shown(verbose)
        values: dict[str, Any] = {
            "license": "\n".join(self.license),
            "modelfile": self.modelfile(),
            "parameters": parameters_text(self.parameters),
            "template": self.template.text if self.template else self.header.template,
            "system": self.system,
            "messages": list(self.messages),
            **self.needs,
        }
        return {name: value for name, value in values.items() if value} | {
            "details": self.details,
            "model_info": self.header.shown(verbose),
            **({"projector_info": eyes} if eyes else {}),
            "tensors": [
                {"name": name, "type": type, "shape": list(shape)} for name, type, shape in self.header.tensors
            ],
            "capabilities": list(self.capabilities),
            "modified_at": self.modified.isoformat(),
        }

    def _texts(self, media_type: str) -> list[str]:
        return [_read(path, self.name) for path in self.blobs.get(media_type, ())]

    def _json(self, media_type: str, kind: type) -> list[Any]:
        found = []
        for text in self._texts(media_type):
            try:
                values = json.loads(text)
            except (ValueError, RecursionError):
                values = None
            if not isinstance(values, kind):
                raise StoreError(
                    f"{self.name}: its {media_type.rsplit('.', 1)[-1]} is damaged: pull or create it again"
                )
            found.append(values)
        return found


def usual_parameters(folder: Path) -> dict[str, Any]:
    """What the makers of a checkpoint folder want: only whether it is ever to draw."""
    never = read_object(folder / "generation_config.json").get("do_sample") is False
    return {"temperature": 0.0} if never else {}


def _read(path: Path, name: str) -> str:
    try:
        with open_regular(path) as file:
            raw = file.read(_MAX_TEXT + 1)
        if len(raw) > _MAX_TEXT:
            raise StoreError(f"{name}: one of its texts has more than {_MAX_TEXT} bytes")
        return raw.decode()
    except UnicodeDecodeError:
        raise StoreError(f"{name}: one of its texts is not UTF-8: pull or create it again") from None
    except OSError as error:
        why = (error.strerror or "unknown error").lower()
        raise StoreError(f"{name}: one of its parts cannot be read: {why}; pull or create it again") from None
