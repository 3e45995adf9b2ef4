"""Fields of ``FilterVisualization``."""

from typing import Any

import pytest

from attribution import FilterVisualization, InputError

GOOD: dict[str, Any] = {"layer": "body", "channels": (0, 1)}
BAD: list[dict[str, Any]] = [
    {"layer": ""},
    {"layer": 3},
    {"channels": ()},
    {"channels": "01"},
    {"channels": (0, 0)},
    {"channels": (-1,)},
    {"channels": (True,)},
    {"channels": (0.0,)},
    {"channels": 3},
    {"steps": 0},
    {"steps": 1.0},
    {"step_size": 0},
    {"step_size": -0.1},
    {"step_size": float("nan")},
    {"step_size": float("inf")},
    {"step_size": "0.05"},
    {"size": 0},
    {"size": (1, 2, 3, 4)},
    {"noise": -1},
    {"noise": True},
    {"seed": -1},
    {"seed": None},
    {"in_channels": 0},
]


@pytest.mark.parametrize("fields", BAD, ids=str)
def test_out_of_range(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(InputError, match=rf"FilterVisualization\.{name}"):
        FilterVisualization(**{**GOOD, **fields})


def test_zero_noise_is_a_choice() -> None:
    assert FilterVisualization(**GOOD, noise=0).noise == 0.0
    assert FilterVisualization(**GOOD, size=(9, 9)) == FilterVisualization(**GOOD, size=9)
