"""``Row`` and ``CurveRow``: what is kept of each photo, in memory and as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from attribution.errors import OutputError
from attribution.paths import named
from attribution.runs import files

SECONDS = "seconds"
"""The metric by which a technique's time for a photo is kept."""

FORWARDS = "forwards"
"""The metric by which its work is: multiply-adds for one photo, per those of one forward."""

COSTS = SECONDS, FORWARDS


@dataclass(frozen=True)
class Row:
    """One value of one photo.

    Attributes:
        photo: Its name.
        target: Such as ``"class 7"``; empty where the value is of the photo.
        map: Technique or control.
        metric: By name.
        variant: Baseline, depth or backend; empty where there is one.
        value: Finite.
    """

    photo: str
    target: str
    map: str
    metric: str
    variant: str
    value: float


@dataclass(frozen=True)
class CurveRow:
    """One point of a photo's curves.

    Attributes:
        photo: Its name.
        target: Such as ``"class 7"``.
        map: Technique or control.
        baseline: What the cells were replaced by.
        removed: Part of the cells, 0 to 1.
        most: Score with the most important ones removed.
        least: With the least important ones removed.
    """

    photo: str
    target: str
    map: str
    baseline: str
    removed: float
    most: float
    least: float


R = TypeVar("R", Row, CurveRow)


def write(path: Path, kind: type[Row] | type[CurveRow], rows: Iterable[Row | CurveRow]) -> None:
    """Rows as CSV with a header; the file appears whole or not at all. Numbers come back bit by bit.

    Raises:
        OutputError: It cannot be written.
    """
    text = io.StringIO(newline="")
    lines = csv.writer(text)
    lines.writerow([field.name for field in fields(kind)])
    lines.writerows(map(astuple, rows))
    files.write(path, text.getvalue().encode("utf-8", "backslashreplace"))


def write_parquet(path: Path, kind: type[Row] | type[CurveRow], rows: Sequence[Row | CurveRow]) -> None:
    """The same as Parquet, for which pyarrow must be installed.

    Raises:
        OutputError: It cannot be written.
    """
    import pyarrow as arrow
    from pyarrow import parquet

    types: dict[Any, Any] = {float: arrow.float64(), str: arrow.string()}
    schema = arrow.schema([(field.name, types[field.type]) for field in fields(kind)])
    columns = {name: [_utf8(getattr(row, name)) for row in rows] for name in schema.names}
    with files.writing(path) as file:
        parquet.write_table(arrow.table(columns, schema), file)


def _utf8(value: str | float) -> str | float:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def read(path: Path, kind: type[R]) -> list[R]:
    """Rows of a file.

    Raises:
        OutputError: It is no such file.
    """
    types = [field.type for field in fields(kind)]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *lines = list(csv.reader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise OutputError(f"cannot read {named(path)}: {error}") from error
    if header != [field.name for field in fields(kind)]:
        raise OutputError(f"{named(path)} has columns {', '.join(header)}; give a file that evaluate wrote")
    try:
        values: list[list[Any]] = [
            [float(c) if type_ is float else c for c, type_ in zip(line, types, strict=True)] for line in lines
        ]
    except ValueError as error:
        raise OutputError(f"{named(path)} has a line that evaluate did not write: {error}") from error
    return [kind(*each) for each in values]
