"""What holds whatever is drawn: sizes, windows, memory layouts, and which parts of a model are in train mode."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attribution import Attribution, ClassScore, GradCAM, InputError, Inputs, Occlusion, compare, registry
from attribution.testing import awkward
from tests.conftest import noise

CASES = settings(deadline=None, derandomize=True, database=None)
SIDE = st.integers(1, 12)


@pytest.fixture(scope="module")
def pointwise() -> nn.Module:
    """Takes images of any size, down to a single pixel."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
        return nn.Sequential(*layers).eval()


@st.composite
def windows(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """The sizes of an image, of a window in it, and of a step no larger than the window."""
    size = draw(SIDE), draw(SIDE)
    window = draw(st.integers(1, size[0])), draw(st.integers(1, size[1]))
    return size, window, (draw(st.integers(1, window[0])), draw(st.integers(1, window[1])))


def times_covered(technique: Occlusion, size: tuple[int, int]) -> Tensor:
    """By axis, since windows are all pairs of their rows and columns."""
    lattice = technique.lattice(*size)
    counts = [torch.zeros(side) for side in size]
    for count, intervals in zip(counts, (lattice.rows, lattice.columns), strict=True):
        for first, last in intervals:
            assert 0 <= first < last <= len(count)
            count[first:last] += 1
    assert len(lattice.windows) == len(lattice.rows) * len(lattice.columns)
    return torch.outer(*counts)


@settings(CASES, max_examples=500)
@given(windows())
def test_every_pixel_lies_under_a_window(case: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]) -> None:
    size, window, stride = case
    count = times_covered(Occlusion(window=window, stride=stride), size)
    assert count.min() >= 1
    dropped = times_covered(Occlusion(window=window, stride=stride, border="drop"), size)
    assert (dropped <= count).all()


def test_a_dropped_border_leaves_pixels_uncovered() -> None:
    assert times_covered(Occlusion(window=4, stride=3, border="drop"), (9, 8)).min() == 0


@settings(CASES, max_examples=200)
@given(SIDE, SIDE, st.integers(-2, 14), st.integers(-2, 14), st.integers(-2, 14))
def test_what_makes_no_lattice_is_refused(height: int, width: int, top: int, left: int, stride: int) -> None:
    fits = 0 < top <= height and 0 < left <= width and 0 < stride <= min(top, left)
    inputs = Inputs.of(torch.zeros(1, 3, height, width))
    try:
        Occlusion(window=(top, left), stride=stride).check(inputs)
    except InputError:
        assert not fits
    else:
        assert fits


@settings(CASES, max_examples=40)
@given(windows(), st.sampled_from(["probability", "logit"]), st.sampled_from(["plain", "channels_last", "transposed"]))
def test_occlusion_of_any_size(
    pointwise: nn.Module, case: tuple[tuple[int, int], tuple[int, int], tuple[int, int]], score: str, layout: str
) -> None:
    size, window, stride = case
    technique, asked = Occlusion(window=window, stride=stride), ClassScore([[3, 1]], of=score)  # type: ignore[arg-type]
    found = compare(pointwise, laid_out(noise(1, 3, *size), layout), technique, target=asked)
    pairs = found.agreements["captum", "hooks"]
    assert all(pair.holds for pair in pairs), found
    for answer in found.attributions.values():
        assert answer.map.shape == (1, 2, *size)


@settings(CASES, max_examples=40)
@given(SIDE, SIDE, st.sampled_from(["plain", "channels_last", "transposed"]))
def test_grad_cam_of_any_size(pointwise: nn.Module, height: int, width: int, layout: str) -> None:
    inputs = noise(2, 3, height, width)
    technique = GradCAM(layers=("0",), relu=False)
    expected = ask(pointwise, inputs, "hooks", technique).map
    for backend in ("hooks", "captum"):
        found = ask(pointwise, laid_out(inputs, layout), backend, technique).map
        assert found.shape == (2, 1, height, width)
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def laid_out(inputs: Tensor, layout: str) -> Tensor:
    if layout == "channels_last":
        return inputs.contiguous(memory_format=torch.channels_last)
    return inputs.mT.contiguous().mT if layout == "transposed" else inputs


def ask(model: nn.Module, inputs: Tensor, backend: str, technique: GradCAM) -> Attribution:
    return registry.get("grad_cam", backend)(model, technique).attribute(inputs, 1)


@settings(CASES, max_examples=50)
@given(st.lists(st.booleans(), min_size=14, max_size=14))
def test_any_part_may_be_in_train_mode(flags: list[bool]) -> None:
    """The flags are as found, and the map is that of a model in eval mode."""
    model, inputs, technique = awkward("in-place ReLU"), noise(2, 3, 17, 23), GradCAM(layers=("body",))
    modules = list(model.modules())
    assert len(modules) == len(flags)
    expected = ask(model, inputs, "hooks", technique).raw["body"]
    for module, flag in zip(modules, flags, strict=True):
        module.training = flag
    for backend in ("hooks", "captum"):
        found = ask(model, inputs, backend, technique).raw["body"]
        assert [module.training for module in modules] == flags
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_part_in_train_mode_changes_what_the_model_computes() -> None:
    model, inputs = awkward("in-place ReLU"), noise(2, 3, 17, 23)
    with torch.no_grad():
        plain = model(inputs)
        model.get_submodule("norm").train()
        assert not torch.allclose(model(inputs), plain, rtol=1e-2)
