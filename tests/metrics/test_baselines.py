"""What stands in place of removed cells."""

from typing import Any

import pytest
import torch

from attribution import (
    InputError,
    ValueScore,
)
from attribution.metrics import (
    removal_curves,
)
from tests.metrics import by_hand
from tests.metrics.asked import SIZE, a_map, additive, cnn, doubles, only, photos


def test_baselines_are_what_they_are_called() -> None:
    model, x, map_ = cnn(), photos(), a_map(3, 1, 4, 5)
    grey = torch.full((3, 1, 1), 0.25, dtype=torch.float64)
    given: dict[str, Any] = {word: word for word in ("mean", "blur", "noise")}
    given |= {"zero": 0.0, "grey": grey, "each": a_map(3, 3, *SIZE)}
    found = only(removal_curves(model, x, {"m": map_}, target=1, baselines=given, steps=3))
    assert found.baselines == tuple(given)
    for n in range(3):
        score = by_hand.probability(model, 1)
        bases = {"mean": by_hand.mean_colour(x[n]), "zero": torch.zeros_like(x[n]), "grey": torch.full_like(x[n], 0.25)}
        bases["each"] = a_map(3, 3, *SIZE)[n]
        for name, base in bases.items():
            expected = doubles(by_hand.curve(score, x[n], base, map_[n, 0], 3, least=False))
            torch.testing.assert_close(found.most[n, 0, found.baselines.index(name)], expected, rtol=0, atol=1e-12)
    ends = found.most[..., -1]
    assert (ends[..., None] - ends[..., None, :] + torch.eye(6)).abs().min() > 1e-9  # no two are mixed up
    torch.testing.assert_close(found.most[..., -1], found.least[..., -1])


def test_noise_belongs_to_the_photo() -> None:
    model, x, map_ = cnn(), photos(), torch.zeros(3, 1, 4, 5, dtype=torch.float64)
    asked: dict[str, Any] = {"target": 1, "baselines": ("noise",), "steps": 3}
    found = only(removal_curves(model, x, {"m": map_}, **asked))
    last = only(removal_curves(model, x[2:], {"m": map_[2:]}, first=2, **asked))
    torch.testing.assert_close(found.most[2:], last.most, rtol=0, atol=1e-12)
    moved = only(removal_curves(model, x[2:], {"m": map_[2:]}, first=1, **asked))
    assert (found.most[2:] - moved.most).abs().max() > 1e-9


def test_words_need_places() -> None:
    model, x, parts = additive()
    with pytest.raises(InputError, match="needs places"):
        removal_curves(model, x, {"m": parts[:, None]}, target=ValueScore(), baselines=("mean",))
