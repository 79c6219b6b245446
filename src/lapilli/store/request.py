"""What a new model is to be made of: told by a request over HTTP, or by a Modelfile on this machine."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lapilli.checkpoints import safetensors
from lapilli.errors import InputError
from lapilli.store.linked import is_file_of_model
from lapilli.store.modelfile import DEPRECATED, PARAMETERS, ROLES, Modelfile

PLAIN = ("F32", "F16", "BF16")
QUANTIZED = ("Q8_0", "Q6_K", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0")
"""What a model can be quantized to; Q4_K is Q4_K_M."""

PICKLES = (*safetensors.PICKLES, ".npy")

Found = str | Path
"""A file: the digest of a blob that is in the store, or a path, which no request over HTTP can give."""


@dataclass(frozen=True, kw_only=True)
class CreateRequest:
    """What a new model is made of.

    `source` names a model; `files` and `adapters` are files by their names. Texts that are None stay as the source has
    them, empty ones are taken away; licences are added to the source's, parameters put over them, messages replaced.
    """

    source: str = ""
    files: Mapping[str, Found] = field(default_factory=dict)
    adapters: Mapping[str, Found] = field(default_factory=dict)
    template: str | None = None
    system: str | None = None
    licenses: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[Mapping[str, str], ...] = ()
    quantize: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CreateRequest:
        """Read the body of a request; nothing in it is taken for a path. Raises InputError that names the field."""
        for name in ("draft_files", "draft_quantize"):
            if values.get(name):
                raise InputError(f"{name}: draft models are not supported; lapilli guesses ahead without one")
        licenses = values.get("license") or ()
        if isinstance(licenses, str):
            licenses = [licenses]
        if not isinstance(licenses, list | tuple) or not all(isinstance(text, str) for text in licenses):
            raise InputError("license must be a string or a list of strings")
        messages = values.get("messages") or ()
        if not isinstance(messages, list | tuple):
            raise InputError("messages must be a list")
        return cls(
            source=_text(values, "from") or "",
            files=_files(values, "files"),
            adapters=_files(values, "adapters"),
            template=_text(values, "template"),
            system=_text(values, "system"),
            licenses=tuple(text for text in licenses if text),
            parameters=checked_parameters(values.get("parameters") or {}),
            messages=tuple(_message(message) for message in messages),
            quantize=_text(values, "quantize") or _text(values, "quantization") or "",
            renderer=_text(values, "renderer") or "",
            parser=_text(values, "parser") or "",
            requires=_text(values, "requires") or "",
        )

    @classmethod
    def from_modelfile(cls, modelfile: Modelfile, folder: Path, quantize: str = "") -> CreateRequest:
        """What a Modelfile on this machine asks for; its paths start at `folder`.

        Raises InputError for a path where nothing usable lies, for several models, and for a draft.
        """
        if modelfile.draft is not None:
            raise InputError("DRAFT: draft models are not supported; lapilli guesses ahead without one")
        names, files = [], dict[str, Found]()
        for source in modelfile.sources:
            path = _local(source, folder)
            if path is None:
                names.append(source)
            else:
                files |= _local_files(path)
        if len(names) > 1:
            raise InputError(f"FROM names {len(names)} models, one is needed: {', '.join(names)[:200]}")
        adapters: dict[str, Found] = {}
        for adapter in modelfile.adapters:
            path = _local(adapter, folder)
            if path is None:
                raise InputError(f"ADAPTER {adapter[:200]}: there is no such file or folder")
            adapters |= _local_files(path)
        return cls(
            source="".join(names),
            files=files,
            adapters=adapters,
            template=modelfile.template,
            system=modelfile.system,
            licenses=modelfile.licenses,
            parameters=modelfile.parameters,
            messages=tuple({"role": role, "content": content} for role, content in modelfile.messages),
            quantize=quantize,
            renderer=modelfile.renderer or "",
            parser=modelfile.parser or "",
            requires=modelfile.requires or "",
        )

    def to_dict(self) -> dict[str, Any]:
        """The body that asks a server for it, once all its files are digests."""
        values = {
            "from": self.source or None,
            "files": dict(self.files),
            "adapters": dict(self.adapters),
            "template": self.template,
            "system": self.system,
            "license": list(self.licenses),
            "parameters": dict(self.parameters),
            "messages": [dict(message) for message in self.messages],
            "quantize": self.quantize or None,
            "renderer": self.renderer or None,
            "parser": self.parser or None,
            "requires": self.requires or None,
        }
        return {name: value for name, value in values.items() if value not in (None, {}, [])}


def checked_parameters(values: Any) -> dict[str, Any]:
    """The parameters of a model; those that are no longer known are left out.

    Raises InputError for a name that never was, and for a value of another type.
    """
    if not isinstance(values, Mapping):
        raise InputError("parameters must be an object")
    found: dict[str, Any] = {}
    for name, value in values.items():
        kind = PARAMETERS.get(name)
        if kind is None and name not in DEPRECATED:
            raise InputError(f"unknown parameter {str(name)[:80]!r}")
        if kind is not None and value is not None:
            found[name] = _parameter(str(name), kind, value)
    return found


def _parameter(name: str, kind: type, value: Any) -> Any:
    if kind is list:
        values = [value] if isinstance(value, str) else value
        if isinstance(values, list | tuple) and all(isinstance(item, str) for item in values):
            return list(values)
        raise InputError(f'option "{name}" must be of type array')
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is float and number and math.isfinite(value):
        return float(value)
    if kind is int and number and math.isfinite(value) and value == int(value) and abs(value) < 1 << 63:
        return int(value)
    words = {bool: "boolean", float: "float32", int: "integer"}
    raise InputError(f'option "{name}" must be of type {words[kind]}')


def read_quantization(text: str) -> str | None:
    """What to quantize to, None where nothing is asked for. Raises InputError that lists what there is."""
    kind = {"Q4_K": "Q4_K_M"}.get(text.upper(), text.upper())
    if kind and kind not in PLAIN + QUANTIZED:
        known = ", ".join(PLAIN + QUANTIZED)
        raise InputError(f"unsupported quantization type {text[:40]} - supported types are {known}")
    return kind or None


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} must be a string")
    return value


def _files(values: Mapping[str, Any], name: str) -> dict[str, Found]:
    found = values.get(name) or {}
    if not isinstance(found, Mapping):
        raise InputError(f"{name} must be an object of names and digests")
    for file, digest in found.items():
        if not isinstance(digest, str):
            raise InputError(f"{name}: the digest of {str(file)[:80]!r} must be a string")
        if "/" in file or "\\" in file or "\0" in file or file in ("", ".", ".."):
            raise InputError(f"{name}: {str(file)[:80]!r} is no plain name of a file")
    return dict(found)


def _message(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not isinstance(value.get("content", ""), str):
        raise InputError("a message must have a role and a content")
    role = str(value.get("role", "")).lower()
    if role not in ROLES:
        raise InputError(f'message role must be one of "system", "user", or "assistant"; found {role[:40]!r}')
    return {"role": role, "content": value.get("content", "")}


def _local(source: str, folder: Path) -> Path | None:
    """Where a FROM or an ADAPTER lies; None where it is no path, so a model's name."""
    path = folder / Path(source).expanduser()
    try:
        if os.path.lexists(path):
            return path
    except (OSError, ValueError):
        return None  # a name that no file could ever have
    if source.startswith((".", "/", "~", "\\")) or source.lower().endswith((".gguf", ".safetensors")):
        raise InputError(f"{source[:200]}: there is no such file or folder")
    return None


def _local_files(path: Path) -> dict[str, Found]:
    """A file, or those of a folder that make a model or an adapter."""
    if not path.is_dir():
        return {path.name: path}
    files = sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
    if any(file.suffix == ".safetensors" for file in files):
        return {file.name: file for file in files if is_file_of_model(file.name)}
    found = {file.name: file for file in files if file.suffix.lower() == ".gguf"}
    if found:
        return dict(found)
    pickles = [file.name for file in files if file.suffix.lower() in PICKLES]
    hint = f"; {pickles[0]} may be pickle, which can run code: convert it to safetensors" if pickles else ""
    raise InputError(f"{path}: this folder holds no .safetensors and no .gguf file{hint}")
