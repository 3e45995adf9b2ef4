"""Baselines that vary by channel, place and image, and a blurred copy: against plain loops."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import ClassScore, Execution, Occlusion, explain
from attribution.testing import small_cnn
from tests.conftest import BACKENDS, noise
from tests.techniques.occlusion.loop import TOLERANCE, Features, Sequence1d, built, occlusion, off

LOGIT = ClassScore(1, of="logit")
WINDOW: dict[str, Any] = {"window": (4, 5), "stride": (3, 4)}
HEIGHT, WIDTH = 10, 13


def double(*shape: int, seed: int = 0) -> Tensor:
    return noise(*shape, dtype=torch.float64, seed=seed)


def logit(output: Tensor, n: int) -> Tensor:
    return output[0, 1:2]


def gaussian(x: Tensor, sigma: tuple[float, ...]) -> Tensor:
    """The blur by its definition: a weighted mean of the places within four σ along each axis."""
    found = torch.zeros_like(x)
    height, width = x.shape[2:]
    for i in range(height):
        for j in range(width):
            total = torch.zeros(x.shape[:2], dtype=x.dtype)
            weights = 0.0
            for p in range(height):
                for q in range(width):
                    far = (abs(p - i) > -(-4 * sigma[0] // 1)) or (abs(q - j) > -(-4 * sigma[1] // 1))
                    parts = torch.tensor([(p - i) / sigma[0], (q - j) / sigma[1]], dtype=torch.float64)
                    weight = 0.0 if far else float((-0.5 * parts.square().sum()).exp())
                    total += weight * x[:, :, p, q]
                    weights += weight
            found[:, :, i, j] = total / weights
    return found


BASELINES = {
    "a number": (0.75, lambda x: torch.full_like(x, 0.75)),
    "one per channel": ((0.5, -1.0, 2.0), lambda x: double_of((0.5, -1.0, 2.0)).view(1, 3, 1, 1).expand_as(x)),
    "by pixel": (double(3, HEIGHT, WIDTH, seed=5), lambda x: double(3, HEIGHT, WIDTH, seed=5).expand_as(x)),
    "a picture": (double(HEIGHT, WIDTH, seed=6), lambda x: double(HEIGHT, WIDTH, seed=6).expand_as(x)),
    "by row": (double(HEIGHT, 1, seed=6), lambda x: double(HEIGHT, 1, seed=6).expand_as(x)),
    "blurred": ("blur", lambda x: gaussian(x, (1.0, 1.25))),
}


def double_of(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@BACKENDS
@pytest.mark.parametrize("batch_size", [2, None])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", list(BASELINES))
def test_baselines(name: str, batch: int, batch_size: int | None, backend: str) -> None:
    baseline, full = BASELINES[name]
    model, x = small_cnn(dtype=torch.float64), double(batch, 3, HEIGHT, WIDTH)
    check_baseline(model, x, baseline, full(x), batch_size, backend)


@BACKENDS
@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_a_baseline_for_each_image(batch_size: int | None, backend: str) -> None:
    model, x = small_cnn(dtype=torch.float64), double(3, 3, HEIGHT, WIDTH)
    baseline = double(3, 3, HEIGHT, WIDTH, seed=7)
    check_baseline(model, x, baseline, baseline, batch_size, backend)
    one_each = double(3, 1, 1, 1, seed=7)
    check_baseline(model, x, one_each, one_each.expand_as(x), batch_size, backend)


def check_baseline(
    model: nn.Module, x: Tensor, baseline: Any, full: Tensor, batch_size: int | None, backend: str
) -> None:
    technique = Occlusion(**WINDOW, baseline=baseline)
    execution = Execution(batch_size=batch_size)
    result = explain(model, x, technique, backend=backend, target=LOGIT, execution=execution)
    expected = occlusion(model, [x], logit, covers=0, baseline=full, **WINDOW)
    assert off(result.map, expected) <= TOLERANCE[backend]
    other = full.roll(1, dims=0) if len(x) > 1 and not torch.equal(full, full.roll(1, dims=0)) else full * 0.99
    wrong = occlusion(model, [x], logit, covers=0, baseline=other, **WINDOW)
    assert off(result.map, wrong) > 1e-5
    if backend == "hooks":
        plain = not isinstance(baseline, Tensor | str)
        assert result.provenance["engine"] == ("incremental" if plain else "dense")
        assert plain or "baseline varies" in str(result.provenance["reason"])


@BACKENDS
def test_blurred_features_and_sequences(backend: str) -> None:
    """σ is a quarter of the window along the one place axis."""
    for model, x in ((built(Features), double(2, 9)), (built(Sequence1d), double(2, 2, 11))):
        lines = x[:, None, None] if x.ndim == 2 else x[:, :, None]
        full = gaussian(lines, (1.0, 1.5)).view(x.shape)
        technique = Occlusion(window=6, stride=2, baseline="blur")
        result = explain(model, x, technique, backend=backend, target=LOGIT)
        expected = occlusion(model, [x], logit, covers=0, baseline=full, window=(6,), stride=(2,))
        assert off(result.map, expected) <= TOLERANCE[backend]


def test_a_blur_keeps_what_is_even_and_moves_nothing() -> None:
    cover = Occlusion(window=8, stride=8, baseline="blur").cover
    even = torch.full((2, 3, 9, 12), 0.3)
    assert torch.allclose(cover(even), even, atol=1e-7)
    bright = torch.zeros(1, 1, 9, 9)
    bright[..., 4, 4] = 1.0
    found = cover(bright)
    assert torch.equal(found, found.flip(-1)), "symmetric"
    assert torch.allclose(found, found.transpose(-1, -2), atol=1e-8)
    assert found.argmax() == 40
    assert 0 < found[..., 4, 4] < 0.1


class Mixing(nn.Module):
    """Its batch norm counts over whatever images come together, so that images go one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.norm(self.conv(x)).relu().mean(dim=(2, 3)))
        return found


@BACKENDS
@pytest.mark.parametrize("rows", [1, 3])
def test_images_that_go_one_by_one_keep_their_own_baseline(rows: int, backend: str) -> None:
    model, x, baseline = built(Mixing), double(3, 3, HEIGHT, WIDTH), double(rows, 3, HEIGHT, WIDTH, seed=7)
    technique = Occlusion(**WINDOW, baseline=baseline)
    result = explain(model, x, technique, backend=backend, target=LOGIT)
    assert "one by one" in str(result.provenance["rows"])
    expected = occlusion(model, [x], logit, covers=0, baseline=baseline.expand_as(x), **WINDOW)
    assert off(result.map, expected) <= TOLERANCE[backend]
    assert result.technique == technique
