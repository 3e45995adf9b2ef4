"""What is drawn: the same each time, another part by another seed, and no pair of values left out."""

from collections import Counter
from itertools import combinations, product
from typing import Any

import pytest

from tests import draw

AXES: dict[str, Any] = {"name": [f"t{n}" for n in range(11)], "backend": {"a": 1, "b": 2}, "dtype": [16, 32, 64]}


def split(mark: pytest.MarkDecorator) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """What every run takes, and what is left to ``-m slow``."""
    cells: list[Any] = mark.args[1]
    return (
        [tuple(cell.values) for cell in cells if not cell.marks],
        [tuple(cell.values) for cell in cells if [mark.name for mark in cell.marks] == ["slow"]],
    )


def test_each_pair_of_values_meets_and_the_whole_is_there() -> None:
    taken, left = split(draw.pairwise(**AXES))
    values = [[*axis.values()] if isinstance(axis, dict) else axis for axis in AXES.values()]
    for one, other in combinations(range(3), 2):
        assert {(cell[one], cell[other]) for cell in taken} == {*product(values[one], values[other])}
    assert Counter([*taken, *left]) == Counter(product(*values))
    assert 11 * 3 <= len(taken) <= 11 * 4 < 11 * 2 * 3


def test_a_seed_draws_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    first, again = split(draw.pairwise(**AXES)), split(draw.pairwise(**AXES))
    assert first == again
    monkeypatch.setattr(draw, "SEED", "7")
    assert split(draw.pairwise(**AXES)) != first


def test_what_is_slow_already_stays_so_and_counts_for_nothing() -> None:
    slow = pytest.param("b", id="b", marks=pytest.mark.slow)
    taken, left = split(draw.pairwise(one=[pytest.param("a", id="a"), slow], two=[1, 2]))
    assert (taken, left) == ([("a", 1), ("a", 2)], [("b", 1), ("b", 2)])


def test_some_has_its_part() -> None:
    given = [pytest.param(n, id=f"case {n}") for n in range(400)]
    slow = [each for each in draw.some(given, 0.25, whole=("case 1",)) if each.marks]
    assert 400 * 0.4 < len(slow) < 400 * 0.65  # a quarter of 289, and the 111 that begin so
    assert not [each for each in slow if str(each.id).startswith("case 1")]
