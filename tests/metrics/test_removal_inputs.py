"""Curves of removal of series, volumes, regions and several inputs."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import FunctionScore, InputError, Inputs, RegionScore
from attribution.metrics import (
    removal_curves,
)
from attribution.testing import guard, small_cnn
from tests.conftest import noise
from tests.metrics import by_hand
from tests.metrics.asked import SIZE, Segmenting, a_map, doubles, only, photos


class Lines(nn.Module):
    """Of series or volumes."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        kind: Any = {1: nn.Conv1d, 3: nn.Conv3d}[rank]
        self.conv = kind(2, 4, 3, padding=1, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu().flatten(2).mean(2)  # type: ignore[no-any-return]


@pytest.mark.parametrize("places", [(19,), (5, 7, 6)])
def test_series_and_volumes(places: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model, x = Lines(len(places)), noise(2, 2, *places, dtype=torch.float64)
    grid = tuple(size // 2 for size in places)
    map_ = a_map(2, 1, *grid)
    found = only(removal_curves(model, x, {"m": map_}, target=1, baselines=("mean",), steps=3))
    for n in range(2):
        score = by_hand.probability(model, 1)
        expected = by_hand.curve(score, x[n], by_hand.mean_colour(x[n]), map_[n, 0], 3, least=True)
        torch.testing.assert_close(found.least[n, 0, 0], doubles(expected), rtol=0, atol=1e-12)


def test_a_region_is_fixed_on_the_clean_output() -> None:
    model, x = Segmenting(), photos(2)
    mask = model(x).argmax(1) == 2
    map_ = a_map(2, 1, 4, 5)
    found = only(removal_curves(model, x, {"m": map_}, target=RegionScore(2), baselines=("mean",), steps=3))
    for n in range(2):

        def score(image: Tensor, n: int = n) -> float:
            return float(model(image[None]).detach()[0, 2][mask[n]].mean())

        expected = by_hand.curve(score, x[n], by_hand.mean_colour(x[n]), map_[n, 0], 3, least=False)
        torch.testing.assert_close(found.most[n, 0, 0], doubles(expected), rtol=0, atol=1e-10)


class Two(nn.Module):
    def forward(self, image: Tensor, table: Tensor, ids: Tensor) -> Tensor:
        return torch.stack([image.flatten(1).sum(1), (table * ids[:, None]).sum(1)], 1).sum(1)


def test_one_of_several_inputs_is_changed_and_the_rest_stays_with_its_example() -> None:
    image, table, ids = a_map(3, 1, 4, 4), a_map(3, 5, seed=2), torch.tensor([1, 2, 3])
    inputs = Inputs.of((image, table, ids))
    found = removal_curves(
        Two(),
        inputs,
        {"image": a_map(3, 1, 4, 4, seed=3)},
        target=FunctionScore(lambda y: y),
        baselines=(0.0,),
        steps=2,
    )
    rest = (table * ids[:, None]).sum(1)
    torch.testing.assert_close(only(found).most[:, 0, 0, -1], rest)
    torch.testing.assert_close(only(found).most[:, 0, 0, 0], image.flatten(1).sum(1) + rest)


def test_the_model_is_left_alone() -> None:
    model, x = small_cnn().train(), noise(2, 3, *SIZE)
    state = torch.get_rng_state()
    with guard(model):
        removal_curves(model, x, {"m": noise(2, 1, 4, 5)}, target=1, steps=3)
        with pytest.raises(InputError):
            removal_curves(model, x, {"m": noise(2, 3, 4, 5)}, target=1, steps=3)
    assert torch.equal(state, torch.get_rng_state())
