"""Scores of evidence, as a page tells them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from attribution.metrics import Table
from attribution.metrics.verdicts import cells
from attribution.report import pictures


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
        """Of a table; time is told once."""
        found = []
        for metric, better in table.better.items():
            heads, *lines = cells(table, [metric])
            kept = slice(None) if metric == table.headline else slice(-1)
            named = [head.removeprefix(f"{metric} ") for head in heads]
            found.append((metric, better, tuple(named[kept]), [line[kept] for line in lines]))
        curves = pictures.figure(table.figure()) if table.curves else ""
        return cls(found, table.controls, table.verdicts(), len(table.photos), curves)
