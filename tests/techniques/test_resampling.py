"""The transforms' own gradient against that of torch's ``grid_sample``, and that it is what a device is given."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from attribution.techniques.filter_visualization import resampling
from attribution.techniques.filter_visualization.resampling import Resampling, resampled
from attribution.techniques.filter_visualization.transforms import Transforms
from tests.conftest import noise

SIZES = [(17, 23), (16, 16), (1, 5), (2, 1)]


def pulled(images: Tensor, moved: Tensor, pull: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(moved, images, pull)
    return found


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-13), (torch.float32, 1e-5)], ids=str)
def test_value_and_gradient_are_those_of_grid_sample(size: tuple[int, int], dtype: torch.dtype, within: float) -> None:
    """Also far outside, where the image is mirrored several times, and on the very edges."""
    images, pull = noise(3, 2, *size, dtype=dtype).requires_grad_(), noise(3, 2, 9, 7, dtype=dtype, seed=1)
    grid = 4 * noise(3, 9, 7, 2, dtype=dtype, seed=2)
    grid[0, 0] = torch.tensor([-1.0, 1.0])
    grid[0, 1] = torch.tensor([3.0, -3.0])
    wanted = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    found = Resampling.apply(images, grid)
    assert torch.equal(found, wanted)
    a, b = pulled(images, found, pull), pulled(images, wanted, pull)
    assert b.abs().max() > 0.1
    assert (a - b).abs().max() <= within * b.abs().max()
    assert a.is_contiguous()


def test_gradient_is_the_transpose_of_the_transforms() -> None:
    """⟨T x, y⟩ = ⟨x, Tᵀ y⟩, without torch's backward as a witness."""
    move, draws = Transforms(jitter=5, scale=0.3, rotate=40.0), 2 * torch.rand(2, 4, generator=_source()) - 1
    x, y = noise(2, 3, 16, 21, dtype=torch.float64).requires_grad_(), noise(2, 3, 16, 21, dtype=torch.float64, seed=1)
    grids: list[Tensor] = []

    def note(images: Tensor, grid: Tensor) -> Tensor:
        grids.append(grid)
        return images

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "_sampled", note)
        move(x, draws)
    moved = Resampling.apply(x, grids[0])
    assert not torch.allclose(moved, x, atol=0.1)
    back = pulled(x, moved, y)
    assert torch.allclose((moved * y).sum(), (x * back).sum(), rtol=1e-12)


@pytest.mark.parametrize("asked", [False, True])
def test_a_device_is_given_it_where_deterministic_kernels_are_asked_for(
    asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, grid = noise(1, 1, 4, 4).requires_grad_(), noise(1, 4, 4, 2)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: asked)
    on_cpu = resampled(images, grid)
    assert on_cpu.grad_fn is not None
    assert on_cpu.grad_fn.name() == "GridSampler2DBackward0"
    elsewhere = resampled(images.to("meta"), grid.to("meta"))
    assert elsewhere.grad_fn is not None
    assert (elsewhere.grad_fn.name() == "GridSampler2DBackward0") is not asked


def _source() -> torch.Generator:
    return torch.Generator().manual_seed(0)
