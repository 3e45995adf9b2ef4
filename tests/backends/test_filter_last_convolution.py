"""A truncated forward that ends with a plain convolution runs without it, and gives what it would have given."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from attribution import Execution, FilterVisualization, LayerError, compare, explain
from attribution.techniques.filter_visualization import FIRST_STEP, OK
from attribution_hooks.last_convolution import LastConvolution
from tests.conftest import noise

LAST = "attribution_hooks.filter_visualization.last_convolution"
CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {"kernel_size": 3, "padding": 1},
    "no padding, no bias": {"kernel_size": (3, 2), "bias": False},
    "stride that leaves a rest": {"kernel_size": 3, "stride": (2, 3)},
    "dilation": {"kernel_size": 3, "dilation": 2, "padding": "same"},
    "groups": {"kernel_size": 3, "groups": 2},
    "reflected border": {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"},
    "circular border": {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    "1 × 1": {"kernel_size": 1},
}


def net(**convolution: Any) -> nn.Sequential:
    torch.manual_seed(3)
    last = nn.Conv2d(6, 4, **convolution)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), last, nn.ReLU()).eval()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What went into the convolution's place, forward by forward."""
    seen: list[Tensor] = []
    whole = LastConvolution.entry

    def entry(self: LastConvolution, run: Any, images: Tensor) -> Tensor:
        seen.append(whole(self, run, images))
        return seen[-1]

    monkeypatch.setattr(LastConvolution, "entry", entry)
    return seen


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("neuron", [None, (1, 2)], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)], ids=str)
def test_it_equals_the_forward_with_the_convolution(
    name: str,
    neuron: tuple[int, int] | None,
    dtype: torch.dtype,
    tolerance: float,
    calls: list[Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = net(**CONVOLUTIONS[name]).to(dtype)
    technique = FilterVisualization(layer="3", channels=(2, 0, 3), steps=6, size=(18, 23), neuron=neuron)
    short = explain(model, None, technique)
    assert len(calls) >= 7  # and once more where a start is silent
    assert short.extras["status"].tolist() == [OK] * 3
    assert compare(model, None, technique).holds
    monkeypatch.setattr(LAST, lambda *_: None)
    whole = explain(model, None, technique)
    first, other = whole.raw[FIRST_STEP], explain(model, None, replace(technique, channels=(2, 1, 3))).raw[FIRST_STEP]
    assert (short.raw[FIRST_STEP] - first).abs().max() <= tolerance * first.abs().max()
    assert torch.allclose(short.extras["objective"], whole.extras["objective"], rtol=1e-2, atol=100 * tolerance)
    assert torch.allclose(short.extras["objective"][0], whole.extras["objective"][0], rtol=1e-5, atol=tolerance)
    assert (other[1] - first[1]).abs().max() > 1e4 * tolerance * first.abs().max(), "the channel does not matter"


def test_chunks_keep_to_their_own_channels(calls: list[Tensor]) -> None:
    model = net(**CONVOLUTIONS["plain"]).double()
    technique = FilterVisualization(layer="3", channels=(0, 1, 2, 3), steps=3, size=(18, 23))
    whole, parts = (explain(model, None, technique, execution=Execution(batch_size=n)).map for n in (None, 3))
    assert len(calls) == 12
    assert (whole - parts).abs().max() <= 1e-9 * whole.abs().max()


def test_a_channel_that_does_not_exist_is_refused() -> None:
    with pytest.raises(LayerError, match="no channel 4"):
        explain(net(kernel_size=3), None, FilterVisualization(layer="3", channels=(4,), steps=1, size=16))


def _hooked(model: nn.Sequential) -> None:
    model[3].register_forward_hook(lambda module, args, output: output * 2)


def _before(model: nn.Sequential) -> None:
    model[3].register_forward_pre_hook(lambda module, args: (args[0].square(),))


def _parametrised(model: nn.Sequential) -> None:
    parametrizations.weight_norm(model[3])


def _replaced(model: nn.Sequential) -> None:
    last, plain = model[3], model[3].forward
    last.forward = lambda x: plain(x).square()


def _subclassed(model: nn.Sequential) -> None:
    class Squared(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).square()

    model[3] = Squared(6, 4, 3)


def _twice(model: nn.Sequential) -> None:
    model[0] = nn.Conv2d(3, 6, 1)
    model.add_module("again", nn.Sequential(nn.Conv2d(4, 6, 1), model[3]))


@pytest.mark.parametrize("alter", [_hooked, _before, _parametrised, _replaced, _subclassed])
def test_what_is_not_a_plain_convolution_is_run(alter: Callable[[nn.Sequential], None], calls: list[Tensor]) -> None:
    model = net(kernel_size=3)
    alter(model)
    technique = FilterVisualization(layer="3", channels=(1, 2), steps=2, size=16)
    assert compare(model, None, technique).holds
    assert not calls


def test_a_convolution_that_runs_twice_is_run(calls: list[Tensor]) -> None:
    model = net(kernel_size=3)
    _twice(model)
    explain(model, None, FilterVisualization(layer="3#0", channels=(1,), steps=1, size=32))
    with pytest.raises(LayerError, match="runs"):
        explain(model, None, FilterVisualization(layer="3", channels=(1,), steps=1, size=32))
    assert not calls


def test_under_autocast_and_in_bfloat16_it_is_run(calls: list[Tensor]) -> None:
    technique = FilterVisualization(layer="3", channels=(1,), steps=1, size=16)
    explain(net(kernel_size=3), None, technique, execution=Execution(autocast=torch.bfloat16))
    explain(net(kernel_size=3).bfloat16(), None, technique)
    assert not calls


def test_the_pull_is_that_of_any_input() -> None:
    module = nn.Conv2d(5, 4, 3, stride=2, padding=1).double()
    last = LastConvolution(module, lambda a, channels: a[torch.arange(2), channels].mean(dim=(1, 2)))
    channels, x = torch.tensor([3, 1]), noise(2, 5, 9, 8, dtype=torch.float64).requires_grad_()
    value, pull = last.value(x, channels)
    expected = module(x)[[0, 1], [3, 1]].mean(dim=(1, 2))
    (gradient,) = torch.autograd.grad(expected.sum(), x)
    assert torch.allclose(value, expected, rtol=1e-12)
    assert torch.allclose(pull, gradient, rtol=1e-12)
    _, other = last.value(x, torch.tensor([3, 0]))
    assert not torch.allclose(other[1], pull[1])
