"""The columns of a job's rows, and a part as bytes: Parquet, always written in the same way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from lapilli.apps.jobs.work import Row
from lapilli.errors import InputError

Kind: TypeAlias = Literal["text", "int", "float", "bool", "json"]
Columns: TypeAlias = Mapping[str, Kind]
"""What a row has, in order. A value may always be None; "json" is any JSON value, kept as canonical text."""

KINDS: tuple[str, ...] = get_args(Kind)
_PYTHON: dict[str, tuple[type, ...]] = {"text": (str,), "int": (int,), "float": (float, int), "bool": (bool,)}
# Nothing here depends on the machine or the day, so the same rows are the same bytes (of one version of pyarrow).
_PARQUET = {"compression": "zstd", "compression_level": 3, "version": "2.6", "use_dictionary": False}


def arrow() -> Any:
    """The library pyarrow, with its Parquet; raises InputError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError("a job's parts are Parquet, which needs pyarrow: pip install 'lapilli[scale]'") from None
    return pyarrow


def canonical(value: Any) -> str:
    """JSON with sorted keys and no blanks: the same value is the same text. Raises ValueError for NaN."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def schema(columns: Columns) -> Any:
    """The Arrow schema of these columns."""
    pa = arrow()
    types = {"text": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "json": pa.string()}
    return pa.schema([pa.field(name, types[kind]) for name, kind in columns.items()])


def table(rows: Sequence[Row], columns: Columns) -> Any:
    """Rows as an Arrow table. Raises InputError for a column that is not among them, or a value of another kind."""
    pa = arrow()
    for row in rows:
        if unknown := row.keys() - columns.keys():
            raise InputError(f"a row has {', '.join(sorted(unknown))}, which is no column of this job")
    fields = schema(columns)
    values = [
        pa.array([_cell(row.get(name), name, kind) for row in rows], type=fields.field(name).type)
        for name, kind in columns.items()
    ]
    return pa.Table.from_arrays(values, schema=fields)


def encode(rows: Sequence[Row], columns: Columns) -> bytes:
    """Rows as one Parquet file: the same bytes for the same rows. Raises InputError as `table` does."""
    pa = arrow()
    out = pa.BufferOutputStream()
    pa.parquet.write_table(table(rows, columns), out, row_group_size=max(1, len(rows)), **_PARQUET)
    return bytes(out.getvalue())


def write_parquet(rows: Iterable[Row], columns: Columns, out: Any, group: int = 10_000) -> None:
    """Any number of rows as one Parquet file, in groups of a fixed size, to a file that is open for writing."""
    with arrow().parquet.ParquetWriter(out, schema(columns), **_PARQUET) as writer:
        for some in grouped(rows, group):
            writer.write_table(table(some, columns), row_group_size=group)


def read(source: Path, columns: Columns) -> Iterator[Row]:
    """The rows of a part; JSON columns come as values."""
    file = arrow().parquet.ParquetFile(source)
    if file.schema_arrow.names != list(columns):
        raise InputError(f"{source}: has columns {file.schema_arrow.names}, not {list(columns)}")
    parse: dict[str, Callable[[str], Any]] = {name: json.loads for name, kind in columns.items() if kind == "json"}
    for batch in file.iter_batches(batch_size=1024):
        for row in batch.to_pylist():
            for name, of in parse.items():
                row[name] = None if row[name] is None else of(row[name])
            yield row


def grouped(rows: Iterable[Row], count: int) -> Iterator[list[Row]]:
    """Rows by so many."""
    some: list[Row] = []
    for row in rows:
        some.append(row)
        if len(some) == count:
            yield some
            some = []
    if some:
        yield some


def _cell(value: Any, name: str, kind: Kind) -> Any:
    if value is None:
        return None
    if kind == "json":
        return canonical(value)
    if not isinstance(value, _PYTHON[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise InputError(f"column {name} is {kind}, a row has {type(value).__name__}: {str(value)[:60]!r}")
    return value
