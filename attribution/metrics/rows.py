"""``Row`` and ``CurveRow``: what is kept of each photo, in memory and as CSV."""

import csv
import os
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from attribution.errors import OutputError
from attribution.paths import named

SECONDS = "seconds"
"""The metric by which a technique's time for a photo is kept."""


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


def write(path: Path, kind: type[R], rows: Iterable[R]) -> None:
    """Rows as CSV with a header; the file appears whole or not at all. Numbers come back bit by bit.

    Raises:
        OutputError: It cannot be written.
    """
    part = path.with_name(f".{secrets.token_hex(4)}")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file)
            lines.writerow([field.name for field in fields(kind)])
            lines.writerows(map(astuple, rows))
        os.replace(part, path)
    except OSError as error:
        raise OutputError(f"cannot write {named(path)}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            part.unlink()


def append(path: Path, rows: Sequence[Row] | Sequence[CurveRow]) -> None:
    """More rows behind those of `write`.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(map(astuple, rows))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"cannot write {named(path)}: {error.strerror or error}") from error


def read(path: Path, kind: type[R]) -> list[R]:
    """Rows of a file; a last line that was cut is left out.

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
    found = []
    for line in lines:
        with suppress(ValueError):
            if len(line) == len(types):
                values: list[Any] = [float(c) if type_ is float else c for c, type_ in zip(line, types, strict=True)]
                found.append(kind(*values))
    return found
