"""Names of layers: what they may look like, what they stand for, and what is said where there is no such layer."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, Execution, FilterVisualization, GradCAM, InputError, LayerError, compare, explain
from attribution.layers import LayerName, find
from tests.conftest import BACKENDS, build, noise


@pytest.mark.parametrize(
    ("text", "path", "call", "keys"),
    [
        ("features.28", "features.28", None, ()),
        ("relu#1", "relu", 1, ()),
        ("a.b#10", "a.b", 10, ()),
        ("lstm[0]", "lstm", None, (0,)),
        ("lstm[1][0]", "lstm", None, (1, 0)),
        ("encoder[last hidden]", "encoder", None, ("last hidden",)),
        ("block#2[out]", "block", 2, ("out",)),
        ("fpn[00]", "fpn", None, ("00",)),
    ],
)
def test_parsed(text: str, path: str, call: int | None, keys: tuple[str | int, ...]) -> None:
    name = LayerName.parse(text)
    assert (name.text, name.path, name.call, name.entry, name.keys) == (text, path, call, False, keys)


@pytest.mark.parametrize(
    ("text", "path", "call", "keys"),
    [
        ("body:in", "body", None, ()),
        ("relu#1:in", "relu", 1, ()),
        ("attention:in[mask]", "attention", None, ("mask",)),
        ("a.b#2:in[1][0]", "a.b", 2, (1, 0)),
    ],
)
def test_inputs_parsed(text: str, path: str, call: int | None, keys: tuple[str | int, ...]) -> None:
    name = LayerName.parse(text)
    assert (name.text, name.path, name.call, name.entry, name.keys) == (text, path, call, True, keys)


@pytest.mark.parametrize(
    "text", ["", "#1", "relu#", "relu#x", "relu#-1", "lstm[]", "lstm[0", "a#1#2", "a[0]#1", 3, None]
)
def test_not_a_name(text: Any) -> None:
    with pytest.raises(LayerError, match=r"is not a name; give 'features\.28', 'relu#1'"):
        LayerName.parse(text)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers(prefix: str) -> None:
    model = build("residual")
    assert find(model, f"{prefix}body.conv")[1] is dict(model.named_modules())["body.conv"]


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")], ids=["parallel", "compiled"]
)
@BACKENDS
def test_wrapped_models_are_looked_through(wrap: Any, backend: str) -> None:
    model, inputs = build("cnn"), noise(1, 3, 17, 23)
    plain = explain(model, inputs, GradCAM(layers=("body",)), backend=backend, target=1)
    for layer in ("body", "module.body", "_orig_mod.body"):
        wrapped = explain(wrap(model), inputs, GradCAM(layers=(layer,)), backend=backend, target=1)
        assert torch.equal(wrapped.maps[layer], plain.maps["body"])


def test_a_child_that_is_called_module_is_found() -> None:
    model = nn.Sequential()
    model.add_module("module", nn.Conv2d(3, 2, 1))
    assert find(model, "module")[1] is model[0]
    assert find(model, "module.module")[1] is model[0]


@BACKENDS
@pytest.mark.parametrize("name", ["bdoy", "body.conw", "module.", "body.conv.weight", "bdoy#1", "bdoy[0]"])
def test_an_unknown_layer_names_the_nearest(backend: str, name: str) -> None:
    model, inputs, ran = build("residual"), noise(1, 3, 17, 23), []
    model.register_forward_pre_hook(lambda module, args: ran.append(module))
    for technique in (GradCAM(layers=(name,)), Activations(layers=("stem", name))):
        with pytest.raises(LayerError, match=r"no layer .* in Sequential.*named_modules"):
            explain(model, inputs, technique, backend=backend)
    filters = FilterVisualization(layer=name, channels=(0,), size=16)
    for asked in (filters, replace(filters, neuron="center")):
        with pytest.raises(LayerError, match=r"no layer .* in Sequential"):
            explain(model, None, asked, backend=backend)
    assert not ran, "the model ran before the name was looked up"
    explain(model, inputs, GradCAM(layers=("body",)), backend=backend)
    assert ran, "a forward would have been seen"
    if name == "body.conw":
        with pytest.raises(LayerError, match=r"nearest: 'body\.conv'"):
            find(model, name)


@pytest.mark.parametrize("layers", ["body", ("body", "body"), ("",), (3,), None, 5], ids=repr)
def test_layers_are_a_tuple_of_different_names(layers: Any) -> None:
    for technique in (GradCAM, Activations):
        with pytest.raises(InputError, match=rf"{technique.__name__}\.layers"):
            technique(layers=layers)
    assert GradCAM(layers=["body"]).layers == ("body",)  # type: ignore[arg-type]


class Reused(nn.Module):
    """One ReLU runs three times, one convolution never, one is a dead end, and a layer gives a tuple or a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.relu = nn.ReLU()
        self.unused, self.side = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1)
        self.pair, self.named = Pair(), Named()
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        self.side(x)
        x = self.relu(self.b(self.relu(self.a(x))))
        first, second = self.pair(x)
        both = self.named(first + second)
        return self.relu(self.fc(both["mean"])) + self.fc(both["mean"])  # type: ignore[no-any-return]


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * x, x - 1


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"mean": x.mean(dim=(2, 3)), "map": x}


@pytest.fixture(scope="module")
def reused() -> Reused:
    torch.manual_seed(0)
    return Reused().double().eval()


INPUTS = noise(2, 3, 11, 9, dtype=torch.float64)


def test_one_run_of_a_reused_module(reused: Reused) -> None:
    layers = ("relu#0", "relu#1", "relu#2", "a#0")
    found = explain(reused, INPUTS, Activations(layers=layers)).maps
    first = reused.relu(reused.a(INPUTS))
    assert torch.equal(found["relu#0"], first)
    assert torch.equal(found["relu#1"], reused.relu(reused.b(first)))
    assert torch.equal(found["a#0"], reused.a(INPUTS))
    assert found["relu#2"].shape == (2, 5)


def test_grad_cam_of_one_run(reused: Reused) -> None:
    found = explain(reused, INPUTS, GradCAM(layers=("relu#0", "relu#1"), relu=False, upsample=False), target=1).maps
    assert found["relu#0"].shape == (2, 1, 9, 7)
    same = explain(reused, INPUTS, GradCAM(layers=("pair[0]", "pair[1]"), relu=False, upsample=False), target=1).maps
    activation = reused.relu(reused.b(reused.relu(reused.a(INPUTS)))).detach()
    both = same["pair[0]"] / 2
    assert found["relu#1"].shape == both.shape
    assert torch.allclose(found["relu#1"], 3 * both), "x adds 2x + x − 1"
    assert activation.shape[2:] == both.shape[2:]


def test_items_of_outputs(reused: Reused) -> None:
    found = explain(reused, INPUTS, Activations(layers=("pair[0]", "pair[1]", "named[mean]", "named[map]"))).maps
    assert torch.equal(found["pair[1]"], found["pair[0]"] / 2 - 1)
    assert torch.equal(found["named[map]"], found["pair[0]"] + found["pair[1]"])
    assert torch.equal(found["named[mean]"], found["named[map]"].mean(dim=(2, 3)))


def test_a_filter_of_one_run_or_item(reused: Reused) -> None:
    ask = {"channels": (0, 1), "steps": 2, "size": (11, 9)}
    a = explain(reused, None, FilterVisualization(layer="pair[0]", **ask))  # type: ignore[arg-type]
    b = explain(reused, None, FilterVisualization(layer="relu#1", **ask))  # type: ignore[arg-type]
    assert torch.allclose(a.extras["objective"][0], 2 * b.extras["objective"][0])


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("relu", r"'relu' runs \d times in one forward; say which run: 'relu#0' \(first\) to 'relu#\d' \(last\)"),
        ("relu#3", r"'relu#3': the module runs 3 times in one forward; choose 'relu#0'"),
        ("a#1", r"'a#1': the module runs once in one forward; leave #1 out"),
        ("unused", "'unused' never ran"),
        ("unused#0", "'unused#0' never ran"),
        ("pair", r"gives a tuple of 2, not a tensor; choose one item, e\.g\. 'pair\[0\]'"),
        ("pair[2]", "gives a tuple of 2"),
        ("pair[x]", "gives a tuple of 2"),
        ("named", r"gives a dict with keys \['map', 'mean'\]"),
        ("named[x]", r"e\.g\. 'named\[mean\]'"),
        ("named[0]", r"gives a dict with keys"),
    ],
)
def test_refused_by_hooks(reused: Reused, layer: str, says: str) -> None:
    for technique in (Activations(layers=(layer,)), GradCAM(layers=(layer,))):
        with pytest.raises(LayerError, match=says):
            explain(reused, INPUTS, technique, target=1 if isinstance(technique, GradCAM) else None)
    with pytest.raises(LayerError, match=says):
        explain(reused, None, FilterVisualization(layer=layer, channels=(0,), steps=1, size=(11, 9)))


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("relu", r"runs 3 times in one forward"),
        ("relu#1", "use backend='hooks'"),
        ("unused", "never ran"),
        ("pair", "gives a tuple, not a tensor"),
        ("named", "gives a dict, not a tensor"),
    ],
)
def test_refused_by_captum(reused: Reused, layer: str, says: str) -> None:
    for technique in (Activations(layers=(layer,)), GradCAM(layers=(layer,))):
        with pytest.raises(LayerError, match=says):
            explain(reused, INPUTS, technique, backend="captum", target=1 if isinstance(technique, GradCAM) else None)
    filters = FilterVisualization(layer=layer, channels=(0,), steps=1, size=(11, 9))
    with pytest.raises(LayerError, match=says):
        explain(reused, None, filters, backend="captum")


@BACKENDS
def test_grad_cam_refuses_what_runs_twice_or_has_no_influence(reused: Reused, backend: str) -> None:
    with pytest.raises(LayerError, match="'fc' runs 2 times"):
        explain(reused, INPUTS, GradCAM(layers=("fc",)), backend=backend)
    for layers in (("side",), ("a", "side")):
        with pytest.raises(LayerError, match="does not depend on 'side'"):
            explain(reused, INPUTS, GradCAM(layers=layers), backend=backend)


@BACKENDS
def test_grad_cam_of_the_logits_is_the_logit(backend: str) -> None:
    found = explain(
        build("cnn"), noise(2, 3, 17, 23), GradCAM(layers=("head",), relu=False), backend=backend, target=[[3, 1]] * 2
    )
    assert found.scores is not None
    assert torch.equal(found.map, found.scores)


class Cut(nn.Module):
    """The features are computed without a gradient, as frozen backbones often are."""

    def __init__(self) -> None:
        super().__init__()
        self.net = build("cnn")

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.net.body(self.net.pool(self.net.stem(x)))  # type: ignore[operator]
        return self.net.head(features)  # type: ignore[operator, no-any-return]


@BACKENDS
def test_a_cut_gradient_is_told(backend: str) -> None:
    with pytest.raises(LayerError, match=r"does not depend on 'net\.body', or the gradient is cut"):
        explain(Cut(), noise(1, 3, 17, 23), GradCAM(layers=("net.body",)), backend=backend)
    technique = FilterVisualization(layer="net.body", channels=(0,), steps=1, size=16)
    with pytest.raises(LayerError, match=r"'net\.body' does not depend on the image"):
        explain(Cut(), None, technique, backend=backend)
    after = explain(Cut(), noise(1, 3, 17, 23), GradCAM(layers=("net.head.0",), upsample=False), backend=backend)
    assert after.map.shape == (1, 1, 1, 1)


class Alias(nn.Module):
    """The identity returns its input, which the network changes in place afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.identity, self.fc = nn.Conv2d(3, 4, 3), nn.Identity(), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = self.identity(x)
        x.relu_()
        return self.fc((x + y).mean(dim=(2, 3)))  # type: ignore[no-any-return]


@BACKENDS
def test_an_activation_is_kept_also_where_it_is_an_alias(backend: str) -> None:
    model, inputs = Alias().eval(), noise(2, 3, 9, 9)
    logits = model(inputs).detach()
    found = explain(model, inputs, Activations(layers=("conv", "identity", "fc")), backend=backend).maps
    assert torch.equal(found["identity"], model.conv(inputs).detach())
    assert torch.equal(found["conv"], found["identity"])
    assert torch.equal(found["fc"], logits), "watching changed what the network computes"


def test_overlapping_layers_in_one_pass() -> None:
    model, inputs = build("depthwise", torch.float64), noise(2, 3, 17, 23, dtype=torch.float64)
    together = GradCAM(layers=("body.4", "body", "body.0", "body_relu", "stem", "stem_relu"), relu=False)
    found = explain(model, inputs, together, target=2, execution=Execution(batch_size=1)).raw
    for layer in together.layers:
        alone = explain(model, inputs, GradCAM(layers=(layer,), relu=False), backend="captum", target=2).raw[layer]
        assert (found[layer] - alone).abs().max() <= 1e-12 * alone.abs().max()
    assert compare(model, inputs, together, target=2).holds
