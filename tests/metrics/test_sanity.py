"""Localisation, randomisation, numerics and controls: closed forms, scipy, and mutants."""

from typing import Any

import pytest
import scipy.ndimage
import scipy.stats
import torch
from torch import Tensor, nn

from attribution import (
    GradCAM,
    InputError,
    Inputs,
    IntegratedGradients,
    ModelError,
    NonFiniteError,
    Saliency,
    SmoothGrad,
    explain,
)
from attribution.metrics import (
    BackendDifference,
    Case,
    CompletenessGap,
    Float64Difference,
    MassInMask,
    PointingGame,
    Randomisation,
    RankInMask,
    SeedSpread,
)
from attribution.metrics.controls import centre, controls, edges, random
from attribution.metrics.randomisation import spearman
from attribution.testing import guard, small_cnn
from tests.conftest import noise
from tests.metrics.test_witnesses import asked_again, case, only

SIZE = (5, 7)


def masked(map_: Tensor, count: int = 1) -> Case:
    return Case(model=nn.Identity(), inputs=Inputs.of(torch.zeros(count, 3, *SIZE)), given=map_)


def at(*places: tuple[int, int], value: float = 1.0) -> Tensor:
    map_ = torch.zeros(1, 1, *SIZE)
    for place in places:
        map_[0, 0][place] = value
    return map_


def test_localisation_by_hand() -> None:
    mask = torch.zeros(1, *SIZE, dtype=torch.bool)
    mask[0, 1, 2] = mask[0, 1, 3] = True
    for map_, hit, mass, rank in (
        (at((1, 2)), 1.0, 1.0, 0.5 + 0.5 / 34),
        (at((0, 0)), 0.0, 0.0, 0.5 * 2 / 34),
        (at((1, 2), (0, 0)), 0.5, 0.5, 0.5),
        (at((1, 2), (1, 3)) - at((0, 0), (4, 4)), 1.0, 1.0, 1.0),
        (torch.zeros(1, 1, *SIZE), 2 / 35, 0.0, 2 / 35),
    ):
        asked = masked(map_)
        assert float(only(PointingGame(mask), asked)) == pytest.approx(hit)
        assert float(only(MassInMask(mask), asked)) == pytest.approx(mass)
        assert float(only(RankInMask(mask), asked)) == pytest.approx(rank)


def test_masks_belong_to_their_photos() -> None:
    mask = torch.zeros(5, *SIZE, dtype=torch.bool)
    for n in range(5):
        mask[n, n, n] = True
    maps = torch.cat([at((2, 2)), at((3, 3)), at((0, 0))])
    asked = Case(model=nn.Identity(), inputs=Inputs.of(torch.zeros(3, 3, *SIZE)), given=maps, first=2)
    assert only(PointingGame(mask), asked).flatten().tolist() == [1, 1, 0]
    other = Case(model=nn.Identity(), inputs=asked.inputs, given=maps, first=1)
    assert only(PointingGame(mask), other).flatten().tolist() == [0, 0, 0]


def test_maps_that_point_nowhere_and_masks_that_do_not_fit_are_refused() -> None:
    mask = torch.ones(1, *SIZE, dtype=torch.bool)
    with pytest.raises(NonFiniteError, match="points nowhere"):
        only(PointingGame(mask), masked(at((0, 0), value=float("nan"))))
    with pytest.raises(InputError, match="mask of photo 0 is empty"):
        only(PointingGame(~mask), masked(at((0, 0))))
    with pytest.raises(InputError, match="have places"):
        only(PointingGame(mask[:, :3]), masked(at((0, 0))))
    with pytest.raises(InputError, match="give bools"):
        PointingGame(torch.rand(1, *SIZE))


@pytest.mark.parametrize("levels", [3, 1000])
def test_rank_correlation_is_scipys(levels: int) -> None:
    source = torch.Generator().manual_seed(0)
    a, b = (torch.randint(levels, (2, 3, 5, 7), generator=source).double() for _ in range(2))
    found = spearman(a, b)
    for n in range(2):
        for t in range(3):
            expected = scipy.stats.spearmanr(a[n, t].flatten(), b[n, t].flatten()).statistic
            assert float(found[n, t]) == pytest.approx(expected)
    assert spearman(a, torch.zeros_like(b)).abs().max() == 0
    torch.testing.assert_close(spearman(a, a**3), torch.ones(2, 3, dtype=torch.float64))


def test_randomisation_goes_from_the_output_down() -> None:
    model, x = small_cnn(dtype=torch.float64), noise(3, 3, 17, 23, dtype=torch.float64)
    given = explain(model, x, Saliency(), target=[[1, 2]] * 3)
    asked = Case(model=model, inputs=Inputs.of(x), given=given, explained=asked_again)
    with guard(model):
        found = Randomisation(stages=3).measure(asked)
    assert list(found) == ["33%", "67%", "100%"]
    assert all(each.shape == (3, 2) and each.max() < 0.999 for each in found.values())
    again = Randomisation(stages=3).measure(asked)
    assert all(torch.equal(found[key], again[key]) for key in found)
    whole = Randomisation(stages=1).measure(asked)
    torch.testing.assert_close(whole["100%"], found["100%"])


class Photo(nn.Module):
    """Its gradient is the photo's own edges, whatever the weights: what the test is there to find."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return x.square().flatten(2).sum(2) + 0 * self.head(x.flatten(2).mean(2))  # type: ignore[no-any-return]


def test_a_map_of_the_photo_alone_is_found_out() -> None:
    x = noise(2, 3, 17, 23, dtype=torch.float64)
    given = explain(Photo(), x, Saliency(), target=1)
    asked = Case(model=Photo(), inputs=Inputs.of(x), given=given, explained=asked_again)
    assert all(float(each.min()) == pytest.approx(1) for each in Randomisation().measure(asked).values())


def test_randomisation_of_controls() -> None:
    x = Inputs.of(noise(3, 3, 17, 23))
    for name, control in controls(x).items():
        asked = Case(model=nn.Identity(), inputs=x, given=control(x, 0, 0), control=control)
        for each in Randomisation().measure(asked).values():
            assert float(each.abs().max()) < 0.25 if name == "random" else float(each.min()) == pytest.approx(1)
    assert Randomisation().measure(Case(model=nn.Identity(), inputs=x, given=torch.zeros(3, 1, 17, 23))) == {}


class Locked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = small_cnn()

    def __deepcopy__(self, memo: Any) -> "Locked":
        raise TypeError("not me")

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("metric", [Randomisation(), Float64Difference()], ids=lambda metric: metric.name)
def test_a_model_that_cannot_be_copied_is_told(metric: Any) -> None:
    model, x = Locked(), noise(1, 3, 17, 23)
    given = explain(model, x, Saliency(), target=1)
    with pytest.raises(ModelError, match="cannot be copied"):
        only(metric, Case(model=model, inputs=Inputs.of(x), given=given, explained=asked_again))


def test_numerics() -> None:
    plain = case(Saliency(channels="none"))
    assert CompletenessGap().measure(plain) == {}
    assert SeedSpread().measure(plain) == {}
    found = BackendDifference().measure(plain)
    assert list(found) == ["captum"]
    assert float(found["captum"].max()) < 1e-10
    assert float(only(Float64Difference(), plain).max()) < 1e-12

    path = case(IntegratedGradients(steps=4))
    torch.testing.assert_close(only(CompletenessGap(), path), path.given.extras["relative_gap"].abs())  # type: ignore[union-attr]
    noisy, calm = (case(SmoothGrad(samples=4, noise=part)) for part in (0.3, 1e-6))
    assert float(only(SeedSpread(seeds=2), noisy).min()) > 1e-3 > float(only(SeedSpread(seeds=2), calm).max())


def test_float32_differs_from_float64_by_rounding() -> None:
    model, x = small_cnn(), noise(2, 3, 17, 23)
    given = explain(model, x, GradCAM(layers=("body",)), target=1)
    asked = Case(model=model, inputs=Inputs.of(x), given=given, explained=asked_again)
    assert 0 < float(only(Float64Difference(), asked).max()) < 1e-4
    assert next(model.parameters()).dtype == torch.float32


def test_edges_are_those_of_scipy() -> None:
    x = noise(2, 3, 9, 11, dtype=torch.float64)
    found = edges(Inputs.of(x), 0, 0)
    for n in range(2):
        squares = sum(
            scipy.ndimage.sobel(x[n, c].numpy(), axis=axis, mode="nearest") ** 2 for c in range(3) for axis in (0, 1)
        )
        torch.testing.assert_close(found[n, 0].double(), torch.from_numpy(squares).sqrt(), rtol=1e-4, atol=1e-4)


def test_the_centre_is_largest_and_random_maps_are_their_photos() -> None:
    x = Inputs.of(noise(3, 3, 9, 11))
    prior = centre(x, 0, 0)
    assert prior.shape == (3, 1, 9, 11)
    assert int(prior[0].argmax()) == 4 * 11 + 5
    torch.testing.assert_close(prior, prior.flip(2).flip(3))
    whole = random(x, 0, 0)
    assert torch.equal(whole[1:], random(x[1:], 0, 1))
    assert not torch.equal(whole[1:], random(x[1:], 0, 2))
    assert not torch.equal(whole, random(x, 1, 0))
    assert len(whole.unique()) == whole.numel()
    assert set(controls(Inputs.of(noise(2, 5)))) == {"random"}
    assert random(Inputs.of(noise(2, 5)), 0, 0).shape == (2, 1, 5)
