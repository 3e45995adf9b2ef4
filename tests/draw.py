"""A seeded part of a large matrix of tests: what every run takes. The rest is behind ``-m slow``.

``ATTRIBUTION_DRAW=7 pytest`` draws another part. A failure names its test, which ``-m ''`` runs alone.
"""

import os
import zlib
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

import pytest

SEED = os.environ.get("ATTRIBUTION_DRAW", "0")


def _lot(name: str) -> int:
    return zlib.crc32(f"{SEED} {name}".encode())


def drawn(name: str, part: float) -> bool:
    """Whether a test of this name is in the part that every run takes."""
    return _lot(name) < part * 2**32


def some(parameters: Sequence[Any], part: float, *, whole: Sequence[str] = ()) -> list[Any]:
    """The same parameters, those not drawn marked as slow.

    Args:
        parameters: Made by ``pytest.param`` with an id.
        part: Of them that is drawn, 0 to 1.
        whole: Beginnings of ids that are always drawn.
    """
    return [
        each
        if str(each.id).startswith(tuple(whole)) or drawn(str(each.id), part)
        else pytest.param(*each.values, id=each.id, marks=[*each.marks, pytest.mark.slow])
        for each in parameters
    ]


def pairwise(**axes: Mapping[str, Any] | Sequence[Any]) -> pytest.MarkDecorator:
    """A test of all combinations, of which every run takes some: any two values of two axes meet in one of them.

    Args:
        axes: Argument of the test → its values: by name, named as they print, or made by ``pytest.param`` with an id.
    """
    named = [[_named(each) for each in _entries(values)] for values in axes.values()]
    every = {"-".join(str(each.id) for each in cell): cell for cell in product(*named)}
    fast = {name: _meetings(cell) for name, cell in every.items() if not any(each.marks for each in cell)}
    taken, missing = set(), set().union(*fast.values())
    while missing:
        name = max(fast, key=lambda name: (len(fast[name] & missing), _lot(name)))
        taken.add(name)
        missing -= fast.pop(name)
    return pytest.mark.parametrize(
        tuple(axes),
        [
            pytest.param(
                *(each.values[0] for each in cell),
                id=name,
                marks=[] if name in taken else [pytest.mark.slow],
            )
            for name, cell in every.items()
        ],
    )


def _entries(values: Mapping[str, Any] | Sequence[Any]) -> list[Any]:
    if isinstance(values, Mapping):
        return [pytest.param(value, id=name) for name, value in values.items()]
    return list(values)


def _named(value: Any) -> Any:
    return value if hasattr(value, "values") and hasattr(value, "marks") else pytest.param(value, id=str(value))


def _meetings(cell: Sequence[Any]) -> set[tuple[tuple[int, str], tuple[int, str]]]:
    return set(combinations([(axis, str(each.id)) for axis, each in enumerate(cell)], 2))
