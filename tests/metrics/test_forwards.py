"""Curves of removal: forwards are counted, and none is made of what cannot be scored."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Attribution, InputError, NonFiniteError, Saliency, explain
from attribution.metrics import (
    SRG,
    Deletion,
    Insertion,
    evaluate,
    removal_curves,
)
from tests.conftest import noise
from tests.metrics.asked import (
    SEEN,
    Counted,
    a_map,
    cnn,
    only,
    photos,
)


@pytest.mark.parametrize(("maps", "baselines"), [(1, 1), (4, 1), (4, 3)])
def test_forwards_are_counted(maps: int, baselines: int) -> None:
    model, x, steps = Counted(), photos(2), 8
    given = {str(k): a_map(2, 1, 5, 6, seed=k) for k in range(maps)}
    asked: dict[str, Any] = {"target": 1, "steps": steps, "baselines": ("mean", "blur", "noise")[:baselines]}
    removal_curves(model, x, given, **asked)  # what is found out about a model once
    SEEN.clear()
    removal_curves(model, x, given, **asked)
    needed = maps * baselines * (2 * steps - 2) + 1 + baselines
    assert needed <= sum(SEEN) / len(x) <= 1.1 * needed


def test_a_map_of_all_targets_is_as_cheap_as_one() -> None:
    model, x = Counted(), photos(1)
    shared = only(removal_curves(model, x, {"m": a_map(1, 1, 4, 4)}, target="all", steps=4))
    SEEN.clear()
    again = only(removal_curves(model, x, {"m": a_map(1, 1, 4, 4)}, target="all", steps=4))
    assert sum(SEEN) == 3 * 6 + 1 + 3
    assert torch.equal(shared.most, again.most)
    for t in range(shared.most.shape[1]):
        one = only(removal_curves(model, x, {"m": a_map(1, 1, 4, 4)}, target=t, steps=4))
        torch.testing.assert_close(shared.most[:, t], one.most[:, 0], rtol=0, atol=1e-12)


def test_forwards_are_shared_by_metrics_and_maps() -> None:
    model, x = Counted(), photos(4)
    asked: dict[str, Any] = {
        "metrics": (SRG(steps=8), Insertion(steps=8), Deletion(steps=8)),
        "baselines": ("mean", "blur"),
        "target": 1,
        "batch_size": 4,
    }
    maps = {"a": lambda inputs: noise(4, 1, 5, 6), "b": lambda inputs: noise(4, 1, 5, 6, seed=1)}
    evaluate(model, x, maps, **asked)
    SEEN.clear()
    evaluate(model, x, maps, **asked)
    contestants_and_controls, baselines = 5, 2
    needed = 4 * (contestants_and_controls * baselines * 14 + 1 + baselines)
    assert needed <= sum(SEEN) <= 1.1 * needed


def nan_map(model: nn.Module, x: Tensor) -> dict[str, Tensor | Attribution]:
    map_ = a_map(2, 1, 4, 5)
    map_[1, 0, 2, 2] = float("nan")
    return {"map": map_}


@pytest.mark.parametrize(
    ("maps", "changes", "error", "match"),
    [
        (nan_map, {}, NonFiniteError, "2.5% of the map 'map' is NaN"),
        ({}, {}, InputError, "no maps"),
        ({"m": [1.0]}, {}, InputError, "give an Attribution, or a tensor"),
        ({"m": a_map(3, 1, 4, 5)}, {}, InputError, "for 2 examples"),
        ({"m": a_map(2, 1, 30, 5)}, {}, InputError, "cells for places"),
        ({"m": a_map(2, 1, 4)}, {}, InputError, "give as many axes"),
        ({"m": a_map(2, 2, 4, 5)}, {}, InputError, "of 2 targets, and 1 are scored"),
        ({"m": a_map(2, 1, 4, 5)}, {"baselines": ("gray",)}, InputError, "'gray' is not known"),
        ({"m": a_map(2, 1, 4, 5)}, {"baselines": "mean"}, InputError, "give several"),
        ({"m": a_map(2, 1, 4, 5)}, {"baselines": ()}, InputError, "no baselines"),
        ({"m": a_map(2, 1, 4, 5)}, {"baselines": (torch.zeros(1),)}, InputError, "needs a name"),
        ({"m": a_map(2, 1, 4, 5)}, {"steps": 1}, InputError, "steps is 1"),
        ({"m": a_map(2, 1, 4, 5)}, {"cells": 0}, InputError, "cells is 0"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_the_model_runs(
    maps: Any, changes: dict[str, Any], error: type[Exception], match: str
) -> None:
    model, x = Counted(), photos(2)
    given = maps(model, x) if callable(maps) else maps
    removal_curves(model, x, {"m": a_map(2, 1, 4, 5)}, target=1, steps=2)
    SEEN.clear()
    with pytest.raises(error, match=match):
        removal_curves(model, x, given, **{"target": 1, **changes})
    assert sum(SEEN) <= (2 if "targets" in match else 0)


def test_maps_of_different_targets_are_refused() -> None:
    model, x = cnn(), photos(2)
    a, b = (explain(model, x, Saliency(), target=t) for t in (1, 2))
    with pytest.raises(InputError, match="different targets"):
        removal_curves(model, x, {"a": a, "b": b})
