"""What is known about a model, as `lapilli show` and the REPL's `/show` print it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lapilli.errors import InputError
from lapilli.faces.terminal import printable
from lapilli.ground.amounts import count_text

PARTS = ("license", "modelfile", "parameters", "system", "template")
_LICENSE_LINES = 2


def part_text(shown: Mapping[str, Any], part: str) -> str:
    """One part of what is known: license, modelfile, parameters, system or template; "" where the model has none."""
    if part not in PARTS:
        raise InputError(f"{part!r} is nothing to show: it can be info, {', '.join(PARTS)}")
    found = shown.get(part) or ""
    return "\n".join(found) if isinstance(found, list) else str(found)


def info_text(shown: Mapping[str, Any], *, verbose: bool = False) -> str:
    """The blocks of what is known: model, projector, capabilities, parameters, system, license."""
    blocks = [
        _block("Model", _model_rows(shown)),
        _block("Projector", _projector_rows(shown.get("projector_info") or {})),
        _block("Capabilities", [(str(name),) for name in shown.get("capabilities") or ()]),
        _block("Parameters", _parameter_rows(part_text(shown, "parameters"))),
        _block("System", _lines(part_text(shown, "system"), None if verbose else 2)),
        _block("License", _lines(part_text(shown, "license"), None if verbose else _LICENSE_LINES)),
    ]
    if verbose:
        metadata = {**(shown.get("model_info") or {}), **(shown.get("projector_info") or {})}
        blocks.append(_block("Metadata", [(name, _value_text(metadata[name])) for name in sorted(metadata)]))
        tensors = shown.get("tensors") or ()
        blocks.append(_block("Tensors", [(t["name"], t["type"], str(list(t["shape"]))) for t in tensors]))
    return "\n\n".join(block for block in blocks if block)


def _model_rows(shown: Mapping[str, Any]) -> list[tuple[str, ...]]:
    info, details = shown.get("model_info") or {}, shown.get("details") or {}
    architecture = str(info.get("general.architecture") or details.get("family") or "")
    counted = info.get("general.parameter_count")
    rows = [
        ("architecture", architecture),
        ("parameters", details.get("parameter_size") or (count_text(counted) if counted else "")),
        ("context length", info.get(f"{architecture}.context_length")),
        ("embedding length", info.get(f"{architecture}.embedding_length")),
        ("quantization", details.get("quantization_level")),
        ("requires", shown.get("requires")),
    ]
    return [(name, str(value)) for name, value in rows if value]


def _projector_rows(info: Mapping[str, Any]) -> list[tuple[str, ...]]:
    architecture = str(info.get("general.architecture") or "clip") if info else ""
    counted = info.get("general.parameter_count")
    rows = [
        ("architecture", architecture),
        ("parameters", count_text(counted) if counted else ""),
        ("embedding length", info.get(f"{architecture}.vision.embedding_length")),
        ("dimensions", info.get(f"{architecture}.vision.projection_dim")),
    ]
    return [(name, str(value)) for name, value in rows if value]


def _parameter_rows(text: str) -> list[tuple[str, ...]]:
    return [(name, value.strip()) for name, _, value in (line.partition(" ") for line in text.splitlines() if line)]


def _lines(text: str, most: int | None) -> list[tuple[str]]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = lines[:most]
    return [(line,) for line in (*kept, *["..."] * (len(kept) < len(lines)))]


def _block(title: str, rows: Iterable[Sequence[str]]) -> str:
    """A title, and the rows under it in columns; "" where there are none."""
    cells = [[printable(cell).replace("\n", " ") for cell in row] for row in rows]
    if not cells:
        return ""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ("    ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)
    return "\n".join([f"  {title}", *(f"    {line}" for line in lines)])


def _value_text(value: object) -> str:
    if isinstance(value, list) and len(value) > 5:
        return f"[{', '.join(map(repr, value[:3]))}, ... {len(value)} in all]"
    return str(value)
