"""A truncated forward that ends with a plain convolution runs without it, and gives what it would have given."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.utils import parametrizations

from attribution import Execution, FilterVisualization, LayerError, compare, explain
from attribution.techniques.filter_visualization import FIRST_STEP, OK
from attribution_hooks.filter_visualization.last_convolution import LastConvolution
from tests.backends.last_convolution import AROUND, CONVOLUTIONS, Around, net
from tests.conftest import noise

LAST = "attribution_hooks.filter_visualization.attributor.last_convolution"


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
    assert len(calls) >= 4  # every step but the first whole one, or two where a start is silent
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
    assert len(calls) == 6  # 3 batches: two steps of three
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
    last = LastConvolution("last", module, lambda a, channels: a[torch.arange(2), channels].mean(dim=(1, 2)))
    channels, x = torch.tensor([3, 1]), noise(2, 5, 9, 8, dtype=torch.float64).requires_grad_()
    expected = module(x)[[0, 1], [3, 1]].mean(dim=(1, 2))
    (gradient,) = torch.autograd.grad(expected.sum(), x)
    entry, value = x.detach(), expected.detach()
    for wrong in ((entry, value + 1e-6, gradient), (entry, value, 1.0001 * gradient), (2 * entry, value, gradient)):
        last.prove(channels, *wrong)
        assert not last.serves(channels)
    last.prove(channels, entry, value, gradient)
    assert last.serves(channels)
    assert not last.serves(channels.clone())
    other = noise(2, 5, 9, 8, dtype=torch.float64, seed=1)
    found = last.value(other)
    assert found is not None
    assert torch.allclose(found[0], module(other)[[0, 1], [3, 1]].mean(dim=(1, 2)), rtol=1e-12)
    assert torch.allclose(found[1], gradient, rtol=1e-12)
    assert last.value(noise(2, 5, 9, 9, dtype=torch.float64)) is None


def _masked(net: Around, x: Tensor) -> Tensor:
    x = x.clone()
    x[..., 0, 0] = -torch.inf
    return net.conv(x).nan_to_num(0, 0, 0)  # type: ignore[no-any-return]


def _bare(net: Around, x: Tensor) -> Tensor:
    return net.conv(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", AROUND)
def test_what_a_model_does_around_the_call_counts(name: str, calls: list[Tensor], monkeypatch: Any) -> None:
    model = Around(AROUND[name])
    technique = FilterVisualization.notebook(layer="conv", channels=(0, 2), steps=3, size=(14, 17))
    assert compare(model, None, technique).holds
    assert not calls
    monkeypatch.setattr(LastConvolution, "prove", _believed)
    monkeypatch.setattr(LastConvolution, "confirm", lambda *_: None)
    if name not in ("other batch", "autocast of its own"):  # these fail outright
        believed = compare(model, None, technique)
        hooks, captum = (believed.attributions[name].extras["objective"] for name in ("hooks", "captum"))
        assert not believed.holds or not torch.allclose(hooks, captum, rtol=1e-2), "the proof was not needed"


def _believed(self: LastConvolution, channels: Tensor, entry: Tensor, value: Tensor, gradient: Tensor) -> None:
    zero = torch.zeros_like(entry, requires_grad=True)
    with torch.enable_grad():
        offset = self.objective(self.module(zero.clone()), channels)
        (self._pull,) = torch.autograd.grad(offset.sum(), zero)
    self._channels, self._offset = channels, offset.detach()


def test_a_neuron_away_from_infinity(calls: list[Tensor]) -> None:
    technique = FilterVisualization(layer="conv", channels=(0,), steps=2, size=(14, 17), neuron=(6, 6))
    found = explain(Around(_masked), None, technique)
    assert found.extras["objective"].isfinite().all()


def test_without_graph_it_is_refused() -> None:
    def detached(net: Around, x: Tensor) -> Tensor:
        with torch.no_grad():
            return _bare(net, x)

    for backend in ("hooks", "captum"):
        with pytest.raises(LayerError, match="does not depend on the image"):
            explain(Around(detached), None, FilterVisualization(layer="conv", channels=(0,), steps=2), backend=backend)


def _doubling(module: nn.Module, args: tuple[Any, ...]) -> Any:
    return (2 * args[0],) if isinstance(module, nn.Conv2d) else None


def test_hooks_on_gradients_and_global_hooks_count(calls: list[Tensor]) -> None:
    technique = FilterVisualization.notebook(layer="conv", channels=(0, 2), steps=3, size=(14, 17))
    model = Around(_bare)
    plain = explain(model, None, technique)
    assert calls
    calls.clear()
    model.conv.register_full_backward_pre_hook(lambda module, grads: tuple(map(torch.abs, grads)))
    assert compare(model, None, technique).holds
    handle = register_module_forward_pre_hook(_doubling)
    try:
        doubled = explain(Around(_bare), None, technique)
        assert compare(Around(_bare), None, technique).holds
    finally:
        handle.remove()
    assert not calls
    assert (doubled.extras["objective"] - plain.extras["objective"]).abs().max() > 0.01


def test_a_convolution_that_is_left_out_later() -> None:
    times = iter([True])

    def seldom(net: Around, x: Tensor) -> Tensor:
        return _bare(net, x) if next(times, False) else x[..., 1:-1, 1:-1]

    technique = FilterVisualization(layer="conv", channels=(2,), steps=2, size=16)
    with pytest.raises(LayerError, match="never ran"):
        explain(Around(seldom), None, technique)


def test_inputs_of_the_convolution_may_change_their_size(calls: list[Tensor]) -> None:
    sizes = iter([0, 1, 2, 0, 1, 2] * 20)

    def cropped(net: Around, x: Tensor) -> Tensor:
        return _bare(net, x[..., next(sizes) :, :])

    technique = FilterVisualization(layer="conv", channels=(0, 2), steps=6, size=16)
    assert explain(Around(cropped), None, technique).extras["status"].tolist() == [OK] * 2


def test_a_form_that_holds_at_the_start_only_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another ``_conv_forward`` on the instance, which is affine until the image has grown."""
    model = net(**CONVOLUTIONS["plain"]).double()
    last = model[3]
    plain: Any = last._conv_forward
    entries: list[float] = []

    def clamped(x: Tensor, *rest: Any) -> Any:
        entries.append(float(x.detach().max()))
        return plain(x.clamp(max=0.45), *rest)

    last._conv_forward = clamped  # type: ignore[assignment]
    technique = FilterVisualization.notebook(layer="3", channels=(0, 2), steps=30, step_size=0.2, size=(18, 23))
    short = explain(model, None, technique)
    assert entries[0] < 0.45 < entries[-1]
    monkeypatch.setattr(LAST, lambda *_: None)
    whole = explain(model, None, technique)
    assert torch.allclose(short.map, whole.map, rtol=1e-9, atol=1e-9)
    monkeypatch.undo()
    monkeypatch.setattr(LastConvolution, "confirm", lambda *_: None)
    assert not torch.allclose(explain(model, None, technique).map, whole.map, rtol=1e-3, atol=1e-3)
