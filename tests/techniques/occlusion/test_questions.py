"""Windows over some channels, a region, and scores of regions: against plain loops."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import ClassScore, Execution, Occlusion, RegionScore, TargetError, explain
from attribution.run import Run
from attribution.scores.regions import RegionScore as Scored
from attribution.testing import small_cnn
from tests.conftest import BACKENDS, noise
from tests.techniques.occlusion.loop import TOLERANCE, Features, Segmentation, built, occlusion, off
from tests.techniques.occlusion.test_inputs import unsettled

LOGIT = ClassScore(1, of="logit")
WINDOW: dict[str, Any] = {"window": (4, 5), "stride": (3, 4)}
HEIGHT, WIDTH = 10, 13


def double(*shape: int, seed: int = 0) -> Tensor:
    return noise(*shape, dtype=torch.float64, seed=seed)


def logit(output: Tensor, n: int) -> Tensor:
    return output[0, 1:2]


@BACKENDS
@pytest.mark.parametrize("batch_size", [1, 2, None])
@pytest.mark.parametrize("batch", [1, 3])
def test_windows_over_some_channels(batch: int, batch_size: int | None, backend: str) -> None:
    model, x = small_cnn(dtype=torch.float64), double(batch, 3, HEIGHT, WIDTH)
    technique = Occlusion(**WINDOW, channels=(2, 0), baseline=0.5)
    execution = Execution(batch_size=batch_size)
    result = explain(model, x, technique, backend=backend, target=LOGIT, execution=execution)
    full = torch.full_like(x, 0.5)
    expected = occlusion(model, [x], logit, covers=0, baseline=full, channels=(0, 2), **WINDOW)
    assert off(result.map, expected) <= TOLERANCE[backend]
    every = occlusion(model, [x], logit, covers=0, baseline=full, **WINDOW)
    assert off(result.map, every) > 1e-3
    if backend == "hooks":
        assert "some of the channels" in str(result.provenance["reason"])


def ellipse() -> Tensor:
    i, j = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return (i - j).abs() < 2


BOX = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
BOX[4:6, 8:12] = True
CORNER = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
CORNER[-1, -1] = True
REGIONS: dict[str, tuple[Any, Tensor]] = {
    "bounds": (((4, 6), (8, 12)), BOX),
    "a mask that is a box": (BOX, BOX),
    "a diagonal": (ellipse(), ellipse()),
    "the last place": (CORNER, CORNER),
    "two places": (BOX ^ CORNER.flip(0, 1), BOX ^ CORNER.flip(0, 1)),
}


@BACKENDS
@pytest.mark.parametrize("batch_size", [2, None])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", list(REGIONS))
def test_a_region(name: str, batch: int, batch_size: int | None, backend: str) -> None:
    region, mask = REGIONS[name]
    model, x = small_cnn(dtype=torch.float64), double(batch, 3, HEIGHT, WIDTH)
    technique = Occlusion(**WINDOW, region=region)
    execution = Execution(batch_size=batch_size, incremental="always")
    result = explain(model, x, technique, backend=backend, target=LOGIT, execution=execution)
    zeros = torch.zeros_like(x)
    expected = occlusion(model, [x], logit, covers=0, baseline=zeros, region=mask, **WINDOW)
    assert off(result.map, expected) <= TOLERANCE[backend]
    assert torch.equal(result.map == 0, expected == 0), "what no window covers is 0, and nothing else"
    everywhere = occlusion(model, [x], logit, covers=0, baseline=zeros, **WINDOW)
    assert off(result.map, everywhere) > 1e-3
    every = Occlusion(**WINDOW).lattice(HEIGHT, WIDTH).windows
    touching = [w for w in every if bool(mask[slice(*w[0]), slice(*w[1])].any())]
    assert result.provenance["windows"] == len(touching) < len(every)
    if backend == "hooks":
        crossed = name not in ("a diagonal", "two places")
        assert result.provenance["engine"] == ("incremental" if crossed else "dense")
        assert crossed or "no rectangle" in str(result.provenance["reason"])


@BACKENDS
def test_a_region_of_features_and_of_one_channel(backend: str) -> None:
    features, mask = double(3, 9), torch.tensor([1, 0, 0, 0, 0, 0, 1, 0, 0]).bool()
    result = explain(
        built(Features), features, Occlusion(window=2, stride=1, region=mask), backend=backend, target=LOGIT
    )
    zeros = torch.zeros_like(features)
    sizes: dict[str, Any] = {"covers": 0, "window": (2,), "stride": (1,), "region": mask}
    assert off(result.map, occlusion(built(Features), [features], logit, baseline=zeros, **sizes)) <= TOLERANCE[backend]
    model, x = small_cnn(dtype=torch.float64), double(2, 3, HEIGHT, WIDTH)
    technique = Occlusion(**WINDOW, region=ellipse(), channels=(1,), baseline=double(2, 3, HEIGHT, WIDTH, seed=4))
    found = explain(model, x, technique, backend=backend, target=LOGIT).map
    expected = occlusion(
        model,
        [x],
        logit,
        covers=0,
        baseline=double(2, 3, HEIGHT, WIDTH, seed=4),
        channels=(1,),
        region=ellipse(),
        **WINDOW,
    )
    assert off(found, expected) <= TOLERANCE[backend]


def test_windows_beside_the_region_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    forward = Run.forward

    def counted(self: Any, x: Any, examples: Tensor | None = None) -> Any:
        shown.append(len(x))
        return forward(self, x, examples)

    monkeypatch.setattr(Run, "forward", counted)
    model, x = small_cnn(dtype=torch.float64), double(2, 3, HEIGHT, WIDTH)
    technique = Occlusion(**WINDOW, region=ellipse())
    windows = len(technique.lattice(HEIGHT, WIDTH))
    for backend in ("hooks", "captum"):
        shown.clear()
        explain(model, x, technique, backend=backend, target=LOGIT)
        assert sum(shown) == 2 * (windows + 1), backend


MASKS = torch.stack([BOX, ellipse(), ~BOX])


def region_of(batch: int, mask: Tensor | None, model: nn.Module, x: Tensor) -> Tensor:
    if mask is None:
        predicted: Tensor = model(x).argmax(dim=1) == 1
        return predicted
    return mask if mask.ndim == 3 else mask.expand(batch, -1, -1)


@BACKENDS
@pytest.mark.parametrize("tiles", [True, False])
@pytest.mark.parametrize("batch_size", [1, 2, None])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("mask", ["common", "per image", "predicted"])
def test_region_scores(mask: str, batch: int, batch_size: int | None, tiles: bool, backend: str) -> None:
    found, expected, provenance = segmented(mask, batch, batch_size, tiles, backend)
    assert off(found, expected) <= TOLERANCE[backend]
    if backend == "hooks":
        assert provenance["engine"] == ("incremental" if tiles else "dense")


def segmented(
    mask: str, batch: int, batch_size: int | None, tiles: bool, backend: str
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    model, x = built(Segmentation), double(batch, 3, HEIGHT, WIDTH)
    given = {"common": BOX, "per image": MASKS[:batch], "predicted": None}[mask]
    execution = Execution(batch_size=batch_size, incremental="always" if tiles else False)
    score = RegionScore(1, given)
    result = explain(model, x, Occlusion(**WINDOW), backend=backend, target=score, execution=execution)
    region = region_of(batch, given, model, x)

    def value(output: Tensor, n: int) -> Tensor:
        own: Tensor = output[0, 1][region[n]].mean()
        return own[None]

    expected = occlusion(model, [x], value, covers=0, baseline=torch.zeros_like(x), **WINDOW)
    return result.map, expected, dict(result.provenance)


@BACKENDS
@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_the_mask_of_another_image_is_caught(
    batch_size: int | None, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Scored._weights

    def next_one(self: Any, own: Tensor, examples: Tensor) -> Tensor:
        return weights(self, own, (examples + self.first + 1) % 3 - self.first)

    monkeypatch.setattr(Scored, "_weights", next_one)
    found, expected, _ = segmented("per image", 3, batch_size, False, backend)
    assert off(found, expected) > 1e-3


@pytest.mark.parametrize("tiles", [True, False])
def test_masks_counted_from_the_beginning_of_each_chunk_are_caught(
    tiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Scored._weights
    monkeypatch.setattr(
        Scored, "_weights", lambda self, own, examples: weights(self, own, torch.arange(len(examples)) % 3)
    )
    found, expected, _ = segmented("per image", 3, 2, tiles, "hooks")
    assert off(found, expected) > 1e-3


@BACKENDS
@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_a_region_that_is_settled_on_covered_outputs_is_caught(
    batch_size: int | None, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "scores", unsettled(Run.scores))
    try:
        found, expected, _ = segmented("predicted", 3, batch_size, False, backend)
    except TargetError:  # no place is left of the region
        return
    assert off(found, expected) > 1e-3
