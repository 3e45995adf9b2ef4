"""``scores.parquet`` and ``failures.csv``: derived from the shards, and made again at any time."""

import csv
import io
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from attribution.errors import InputError
from attribution.runs import files
from attribution.runs.folder import RunFolder
from attribution.runs.shard import Record

SCORES, FAILURES = "scores.parquet", "failures.csv"
_ITEM = {"item": "int64", "name": "string", "sha256": "string", "shard": "int64", "part": "int64", "row": "int64"}
_LINES = 10_000
"""Of the table that are held at once."""


def write(folder: RunFolder) -> int:
    r"""Write both tables of the shards that are done; how many items failed.

    ``scores.parquet`` has a line for each item, technique and target: where the map lies, what was explained and its
    score. Names that are no UTF-8 have ``\xNN`` in place of such bytes. ``failures.csv`` has the items without results
    and why; there is none where there are none.

    Raises:
        InputError: pyarrow is not installed.
        OutputError: The disk refuses, or a shard cannot be read.
    """
    require()
    import pyarrow as arrow
    from pyarrow import parquet

    columns = {**_ITEM, **dict(folder.settings["columns"])}
    types = {"string": arrow.string(), "int64": arrow.int64(), "double": arrow.float64()}
    schema = arrow.schema([(name, types[kind]) for name, kind in columns.items()])
    failed: list[tuple[int, str, str]] = []
    with files.writing(folder.root / SCORES) as file, parquet.ParquetWriter(file, schema) as writer:
        lines: list[dict[str, Any]] = []
        for record in folder.records():
            lines += _lines(record)
            failed += [(each["item"], each["name"], each["error"]) for each in record["items"] if each["error"]]
            if len(lines) >= _LINES:
                writer.write_table(arrow.Table.from_pylist(lines, schema))
                lines = []
        if lines:
            writer.write_table(arrow.Table.from_pylist(lines, schema))
    _write_failures(folder, failed)
    return len(failed)


def lines(folder: RunFolder) -> Iterator[dict[str, Any]]:
    """The lines of ``scores.parquet``, from the shards that are done; no tensor is read.

    Raises:
        OutputError: A shard cannot be read.
    """
    return (line for record in folder.records() for line in _lines(record))


def require() -> None:
    """See that the table can be written, before hours of work.

    Raises:
        InputError: pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise InputError("scores.parquet needs pyarrow; pip install 'torch-attribution[lightning]'")


def _lines(record: Record) -> Iterator[dict[str, Any]]:
    for each in record["items"]:
        where = {
            "item": each["item"],
            "name": utf8(each["name"]),
            "sha256": each["sha256"],
            "shard": record["shard"],
            "part": each["part"],
            "row": each["row"],
        }
        for row in each["rows"]:
            yield {**where, **{name: utf8(value) if isinstance(value, str) else value for name, value in row.items()}}


def _write_failures(folder: RunFolder, failed: list[tuple[int, str, str]]) -> None:
    path = folder.root / FAILURES
    if not failed:
        files.remove(path)
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("item", "name", "error"))
    writer.writerows(failed)
    files.write(path, text.getvalue().encode("utf-8", "backslashreplace"))


def utf8(text: str) -> str:
    r"""Bytes of a file's name that are no UTF-8 as ``\xNN``."""
    return text.encode("utf-8", "backslashreplace").decode()
