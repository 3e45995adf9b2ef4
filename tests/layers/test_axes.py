"""Which axis is the channels': means of layers of every form are the loop's, by both backends."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, InputError, LayerError, explain, layers
from attribution.inputs.inputs import as_inputs
from tests.conftest import BACKENDS, noise
from tests.layers.anything import ChannelsLast, Mixer, SequenceFirst, Series, Tokens, Volumes, made

IMAGE = (3, 12, 20)
# model, inputs of one example, layer, whether its channels are last, places of the examples' axis
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str, int, int]] = {
    "grid": (Tokens, IMAGE, "embed", 1, 0),
    "tokens": (Tokens, IMAGE, "norm", 2, 0),
    "tokens, hidden": (Tokens, IMAGE, "mlp.0", 2, 0),
    "tokens, no type": (Tokens, IMAGE, "same", 2, 0),
    "tokens, container": (Tokens, IMAGE, "mlp", 2, 0),
    "tokens, as many as channels": (lambda: Tokens(16), IMAGE, "same", 2, 0),
    "sequence first": (SequenceFirst, IMAGE, "norm", 2, 1),
    "sequence first, no type": (SequenceFirst, IMAGE, "same", 2, 1),
    "channels last": (ChannelsLast, IMAGE, "norm", 3, 0),
    "channels last, container": (ChannelsLast, IMAGE, "block", 3, 0),
    "channels last, no type": (ChannelsLast, IMAGE, "block.1", 3, 0),
    "channels last, square": (lambda: ChannelsLast(5), (3, 20, 20), "block.1", 3, 0),
    "flattened": (Mixer, IMAGE, "flat", 1, 0),
    "flattened, mixed": (Mixer, IMAGE, "mix", 1, 0),
    "flattened, channels that are patches": (lambda: Mixer(64), IMAGE, "flat", 1, 0),
    "series": (Series, (2, 11), "body", 1, 0),
    "series, no type": (Series, (2, 11), "relu", 1, 0),
    "volumes": (Volumes, (1, 5, 7, 9), "body", 1, 0),
    "input of a layer": (ChannelsLast, IMAGE, "block:in", 3, 0),
    "input of a norm": (SequenceFirst, IMAGE, "norm:in", 2, 1),
    "input of a grid": (Tokens, IMAGE, "embed:in", 1, 0),
}


def seen(model: nn.Module, inputs: Tensor, layer: str) -> Tensor:
    """By a hook of the test's own."""
    path, entry, _ = layer.partition(":in")
    found: list[Tensor] = []
    module = model.get_submodule(path)
    if entry:
        module.register_forward_pre_hook(lambda module, args: found.append(args[0].clone()))
    else:
        module.register_forward_hook(lambda module, args, output: found.append(output.clone()))
    with torch.no_grad():
        model(inputs)
    module._forward_hooks.clear()
    module._forward_pre_hooks.clear()
    return found[0]


def looped(values: Tensor, channels: int, examples: int) -> Tensor:
    """Σ over places, one channel and one example at a time."""
    rows = []
    for n in range(values.shape[examples]):
        row = values.select(examples, n)
        axis = channels - (examples < channels)
        rows.append(torch.stack([sum(row.select(axis, k).flatten()) / row.select(axis, k).numel()  # type: ignore[misc]
                                 for k in range(row.shape[axis])]))  # fmt: skip
    return torch.stack(rows)


@BACKENDS
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_a_mean_is_over_places(case: str, batch: int, backend: str) -> None:
    make, form, layer, channels, examples = CASES[case]
    model, inputs = made(make), noise(batch, *form, dtype=torch.float64)
    values = seen(model, inputs, layer)
    expected = looped(values, channels, examples)
    found = explain(model, inputs, Activations(layers=(layer,), reduce="mean"), backend=backend).map
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-10 * values.abs().max()
    stated = Activations(layers=(layer,), reduce="mean", channel_axis=channels)
    assert torch.equal(explain(model, inputs, stated, backend=backend).map, found)
    other = next(axis for axis in range(values.ndim) if axis not in (channels, examples))
    wrong = looped(values, other, examples)
    assert wrong.shape != found.shape or (found - wrong).abs().max() > 1e-3, "any axis would pass"


@BACKENDS
@pytest.mark.parametrize("batch", [1, 3, 15])
def test_a_map_has_the_examples_first(batch: int, backend: str) -> None:
    """Fifteen examples of fifteen tokens: L = N."""
    model, inputs = made(SequenceFirst), noise(batch, *IMAGE, dtype=torch.float64)
    values = seen(model, inputs, "same")
    assert values.shape == (15, batch, 6)
    result = explain(model, inputs, Activations(layers=("same",)), backend=backend)
    assert torch.equal(result.map, values.transpose(0, 1))
    assert result.provenance["axes same"] == "(L, N, D), given as (N, L, D)"
    if batch == 15:
        assert (result.map - values).abs().max() > 1e-3, "the mutant that trusts shape[0] == N"


def test_nothing_tells_is_said_and_mended() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.same(x.flatten(2)[:, :2, :7]).sum(dim=2)  # type: ignore[no-any-return]

    inputs = noise(2, 3, 5, 9, dtype=torch.float64)
    ask: dict[str, Any] = {"layers": ("same",), "reduce": "mean"}
    with pytest.raises(LayerError, match=r"may be \(N, D, L\) or \(N, L, D\); .*channel_axis=1\) or 2"):
        explain(Bare(), inputs, Activations(**ask))
    values = inputs.flatten(2)[:, :2, :7]
    for axis, dim in ((1, 2), (2, 1), (-1, 1)):
        found = explain(Bare(), inputs, Activations(**ask, channel_axis=axis)).map
        assert torch.allclose(found, values.mean(dim=dim), rtol=1e-12)
    for axis, says in ((0, "the axis of the examples"), (3, "no such axis")):
        with pytest.raises(LayerError, match=says):
            explain(Bare(), inputs, Activations(**ask, channel_axis=axis))
    with pytest.raises(InputError, match=r"Activations\.channel_axis is 'last'"):
        Activations(layers=("same",), channel_axis="last")  # type: ignore[arg-type]


@pytest.mark.parametrize("mutant", ["axis 1", "last"])
def test_a_rule_that_reads_one_axis_is_caught(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above fails for the rule that was there, and for its opposite."""
    side = {"axis 1": "first", "last": "last"}[mutant]
    monkeypatch.setattr("attribution.layers.axes._side", lambda *_: side)
    wrong = []
    for case, (make, form, layer, channels, examples) in CASES.items():
        model, inputs = made(make), noise(3, *form, dtype=torch.float64)
        values = seen(model, inputs, layer)
        found = explain(model, inputs, Activations(layers=(layer,), reduce="mean")).map
        expected = looped(values, channels, examples)
        if found.shape != expected.shape or (found - expected).abs().max() > 1e-3:
            wrong.append(case)
    assert len(wrong) >= 6


def test_swin_by_its_widths() -> None:
    """The fault that this rule mends: axis 1 of (N, h, w, 96) is a row."""
    from torchvision.models import swin_t

    model = swin_t().eval()
    inputs = noise(1, 3, 64, 64)
    mean = explain(model, inputs, Activations(layers=("features.1", "features.3"), reduce="mean")).maps
    assert {name: tuple(map_.shape) for name, map_ in mean.items()} == {"features.1": (1, 96), "features.3": (1, 192)}


def test_other_architectures() -> None:
    """Convolutional blocks with norms on the last axis, and patches, by the axis that has their width."""
    from torchvision.models import convnext_tiny, vit_b_32

    for model, layer, shape, channels in (
        (convnext_tiny(), "features.1.0", (1, 96, 16, 16), 1),
        (convnext_tiny(), "features.1.0.block.2", (1, 16, 16, 96), 3),
        (convnext_tiny(), "features.1.0.block.6", (1, 96, 16, 16), 1),
        (vit_b_32(image_size=64), "encoder.layers.encoder_layer_0", (1, 5, 768), 2),
        (vit_b_32(image_size=64), "encoder.layers.encoder_layer_0.mlp.0", (1, 5, 3072), 2),
    ):
        inputs = as_inputs(noise(1, 3, 64, 64))
        assert layers.axes_of(model.eval(), inputs, layer, shape, 1).channels == channels
