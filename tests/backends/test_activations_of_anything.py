"""Activations of inputs, of items of tuples, of nets of any rank and of several inputs: by both backends as by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, GradCAM, LayerError, LayerScore, explain
from attribution.inputs.inputs import Inputs
from attribution.run import Run
from attribution.scores.classes import ClassScore
from attribution_hooks.capture import Captured
from tests.conftest import BACKENDS, build, noise
from tests.layers.anything import Features, Recurrent, Series, Volumes, made

FORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "series": (Series, (2, 11)),
    "volumes": (Volumes, (1, 5, 7, 9)),
    "features": (Features, (7,)),
}


@BACKENDS
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_nets_of_any_rank(form: str, batch: int, backend: str) -> None:
    """In-place layers follow; what comes later changes neither a layer's output nor an input."""
    make, shape = FORMS[form]
    model, inputs = made(make), noise(batch, *shape, dtype=torch.float64)
    with torch.no_grad():
        stem = model.stem(inputs)
        body_in = model[1](stem.clone())
        body = model.body(body_in)
    expected = {"stem": stem, "body:in": body_in, "body": body, "stem:in": inputs}
    result = explain(model, inputs, Activations(layers=tuple(expected)), backend=backend)
    for name, values in expected.items():
        assert (result.maps[name] - values).abs().max() <= 1e-10
    assert (stem - body_in).abs().max() > 1e-3
    result.figure()


@BACKENDS
def test_default_layers_of_other_ranks(backend: str) -> None:
    for make, shape, names in ((Series, (2, 11), {"stem", "body"}), (Volumes, (1, 5, 7, 9), {"stem", "body"})):
        inputs = noise(2, *shape, dtype=torch.float64)
        assert set(explain(made(make), inputs, Activations(), backend=backend).maps) == names
    with pytest.raises(LayerError, match=r"no layer of Features has a spatial output; name .*\('stem',\)"):
        explain(made(Features), noise(2, 7, dtype=torch.float64), Activations(), backend=backend)


def recurrent(model: Any, inputs: Tensor) -> dict[str, Tensor]:
    """Everything that layers are given and give, by hand."""
    with torch.no_grad():
        conv = model.conv(inputs)
        tanh = conv.tanh()
        pair = 2 * conv + tanh
        factor = pair.mean(dim=(2, 3))
        gated = pair * factor[:, :, None, None]
        rows = gated.mean(dim=2).transpose(1, 2)
        output, (hidden, _) = model.lstm(rows)
    return {
        "conv": conv,
        "pair:in[0]": conv,  # which the module writes into
        "pair:in[1]": tanh,
        "pair": pair,
        "gate:in[0]": pair,
        "gate:in[factor]": factor,
        "gate[0]": gated,
        "gate[1]": factor,
        "lstm:in": rows,
        "lstm[0]": output,
        "head:in": hidden[0],
    }


CAPTUM = {"conv", "pair:in[0]", "pair:in[1]", "pair", "gate[0]", "gate[1]", "lstm:in", "head:in"}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("together", [True, False])
def test_inputs_and_items(batch: int, together: bool) -> None:
    model, inputs = made(Recurrent), noise(batch, 3, 9, 7, dtype=torch.float64)
    expected = recurrent(model, inputs)
    for names in [tuple(expected)] if together else [(name,) for name in expected]:
        maps = explain(model, inputs, Activations(layers=names)).maps
        for name in names:
            assert (maps[name] - expected[name]).abs().max() <= 1e-10, name
    assert (expected["pair:in[0]"] - 2 * expected["conv"]).abs().max() > 1e-2, "what was written into it would pass"


@pytest.mark.parametrize("batch", [1, 3])
def test_inputs_and_items_by_captum(batch: int) -> None:
    model, inputs = made(Recurrent), noise(batch, 3, 9, 7, dtype=torch.float64)
    expected = recurrent(model, inputs)
    names = tuple(name for name in expected if name in CAPTUM)
    maps = explain(model, inputs, Activations(layers=names), backend="captum").maps
    assert all((maps[name] - expected[name]).abs().max() <= 1e-10 for name in names)
    for name in sorted({*expected} - CAPTUM):
        with pytest.raises(LayerError, match="Captum takes nothing else; use backend='hooks'"):
            explain(model, inputs, Activations(layers=(name,)), backend="captum")


def test_items_of_items() -> None:
    """The hidden state of an LSTM, (1, N, D), has its examples on the second axis."""
    model, inputs = made(Recurrent), noise(3, 3, 9, 7, dtype=torch.float64)
    hidden = recurrent(model, inputs)["head:in"]
    found = explain(model, inputs, Activations(layers=("lstm[1][0]",))).map
    assert found.shape == (3, 1, 5)
    assert (found[:, 0] - hidden).abs().max() <= 1e-10


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("pair:in", r"'pair:in' is given \[0\] Tensor, \[1\] Tensor.*choose one, e.g. 'pair:in\[0\]'"),
        ("pair:in[2]", r"'pair:in\[2\]' is given"),
        ("gate:in", r"choose one, e.g. 'gate:in\[0\]'"),
        ("lstm[1]", r"'lstm\[1\]' gives a tuple of 2"),
        ("conv:in#1", r"no layer 'conv:in'"),
        ("conv#1:in", r"the module runs once in one forward"),
    ],
)
def test_what_is_no_tensor_is_refused(layer: str, says: str) -> None:
    with pytest.raises(LayerError, match=says):
        explain(made(Recurrent), noise(2, 3, 9, 7, dtype=torch.float64), Activations(layers=(layer,)))


def test_one_run_of_a_reused_module() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x).relu_()).mean(dim=(2, 3))  # type: ignore[no-any-return]

    model, inputs = made(Twice), noise(2, 3, 7, 5, dtype=torch.float64)
    maps = explain(model, inputs, Activations(layers=("conv#0:in", "conv#1:in", "conv#0"))).maps
    with torch.no_grad():
        first = model.conv(inputs)
    assert torch.equal(maps["conv#0:in"], inputs)
    assert torch.equal(maps["conv#1:in"], first.relu())
    assert torch.equal(maps["conv#0"], first)


@BACKENDS
@pytest.mark.parametrize("batch", [1, 3])
def test_several_inputs(batch: int, backend: str) -> None:
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.join = nn.Conv2d(3, 4, 3), nn.Conv2d(1, 4, 3), nn.Linear(8, 5)

        def forward(self, image: Tensor, *, other: Tensor, scale: float) -> Tensor:
            halves = [self.left(image).mean(dim=(2, 3)), scale * self.right(other).mean(dim=(2, 3))]
            return self.join(torch.cat(halves, dim=1))  # type: ignore[no-any-return]

    model: Any = made(Siamese)
    image, other = noise(batch, 3, 9, 7, dtype=torch.float64), noise(batch, 1, 5, 6, dtype=torch.float64, seed=1)
    given = {"image": image, "other": other, "scale": 0.5}
    maps = explain(model, given, Activations(layers=("left", "right", "join:in", "right:in")), backend=backend).maps
    with torch.no_grad():
        left, right = model.left(image), model.right(other)
        joined = torch.cat([left.mean(dim=(2, 3)), 0.5 * right.mean(dim=(2, 3))], dim=1)
    for name, values in {"left": left, "right": right, "join:in": joined, "right:in": other}.items():
        assert (maps[name] - values).abs().max() <= 1e-10
    assert len(Inputs.of(given)) == batch


def test_nothing_behind_the_input_runs() -> None:
    model, inputs = build("cnn"), noise(2, 3, 17, 23)
    explain(model, inputs, Activations(layers=("body:in",)))
    ran: list[str] = []
    for name in ("stem", "body", "head"):
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    explain(model, inputs, Activations(layers=("body:in",)))
    ran.clear()
    explain(model, inputs, Activations(layers=("body:in",)))
    assert ran == ["stem"]


@BACKENDS
@pytest.mark.parametrize("batch", [1, 3])
def test_grad_cam_of_an_input_counts_all_its_readers(batch: int, backend: str) -> None:
    """The input of a block is read by the block and by the sum around it."""
    model, inputs = build("residual", torch.float64), noise(batch, 3, 17, 23, dtype=torch.float64)
    layer = next(name for name, module in model.named_modules() if name.endswith("body"))
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    logits = model(inputs.clone().requires_grad_())
    handle.remove()
    (g,) = torch.autograd.grad(logits[:, 3].sum(), kept)
    expected = (g.mean(dim=(2, 3), keepdim=True) * kept[0]).sum(dim=1, keepdim=True).detach()
    technique = GradCAM(layers=(f"{layer}:in",), relu=False, upsample=False)
    found = explain(model, inputs, technique, target=ClassScore(3), backend=backend).map
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_a_score_of_an_input() -> None:
    model, inputs = build("cnn", torch.float64), noise(2, 3, 17, 23, dtype=torch.float64)
    values = explain(model, inputs, Activations(layers=("body:in",), reduce="mean")).map
    run = Run(model, Activations(layers=("body",)), Inputs.of(inputs), None, asked=LayerScore("body:in", 2))  # type: ignore[arg-type]
    found = run.scores(run.forward(run.inputs))
    assert (found[:, 0] - values[:, 2]).abs().max() <= 1e-12


def test_an_input_kept_without_a_copy_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: what is kept is the very tensor, which the layer then writes into."""
    monkeypatch.setattr(Captured, "_value", lambda self, name, tensor, *, last, keep: tensor.detach())
    model, inputs = made(Recurrent), noise(2, 3, 9, 7, dtype=torch.float64)
    expected = recurrent(model, inputs)["pair:in[0]"]
    found = explain(model, inputs, Activations(layers=("pair:in[0]", "head"))).maps["pair:in[0]"]
    assert (found - expected).abs().max() > 1e-2
