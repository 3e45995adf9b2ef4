"""Scores of evidence, as a page tells them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from attribution.metrics import Table
from attribution.metrics.verdicts import cells
from attribution.report import pictures

_COSTS = 2  # columns at the end of the cells of a table


@dataclass(frozen=True)
class Scores:
    """What an evaluation says.

    Attributes:
        tables: By metric, which way is better; heads; and a line for each map.
        controls: The maps that know nothing of the model.
        sentences: What can be said of them.
        photos: How many there are.
        curves: The curves of removal, as an address; empty where there are none.
    """

    tables: Sequence[tuple[str, str, tuple[str, ...], Sequence[tuple[str, ...]]]]
    controls: Sequence[str]
    sentences: Sequence[str]
    photos: int
    curves: str

    @classmethod
    def of(cls, table: Table) -> Self:
        """Of a table; costs are told once."""
        found = []
        for metric, better in table.better.items():
            heads, *lines = cells(table, [metric])
            told = [any(line[column] for line in lines) for column in range(len(heads))]
            if metric != table.headline:
                told[-_COSTS:] = [False] * _COSTS
            named = [head.removeprefix(f"{metric} ") for head in heads]
            found.append((metric, better, _of(named, told), [_of(line, told) for line in lines]))
        curves = pictures.figure(table.figure()) if table.curves else ""
        return cls(found, table.controls, table.verdicts(), len(table.photos), curves)


def _of(line: Sequence[str], told: Sequence[bool]) -> tuple[str, ...]:
    """The cells of the columns that say something."""
    return tuple(cell for cell, kept in zip(line, told, strict=True) if kept)
