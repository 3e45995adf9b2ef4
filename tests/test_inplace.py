"""Real networks write over their own activations: the maps are those of a copy that does not, bit by bit."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import models

from attribution import Activations, Attributor, GradCAM, Occlusion, Technique, registry
from attribution.testing import calibrated
from tests.cases import BACKENDS, SOME_PAIRS, TECHNIQUES, given, placed
from tests.conftest import noise
from tests.testing.planted import DetachedOnly, Honest, HonestActivations, StoredWithoutClone

INPUTS = noise(2, 3, 67, 93)
LAYERS = {  # the last batch norm, convolution and block; an in-place operation follows the first
    "resnet18": ("layer4.1.bn2", "layer4.1.conv2", "layer4.1"),
    "resnext50_32x4d": ("layer4.2.bn3", "layer4.2.conv3", "layer4.2"),
    "densenet121": ("features.norm5", "features.denseblock4.denselayer16.conv2", "features"),
    "vgg16": ("features.28", "features.26", "features"),
}
NETS = ["resnet18", *(pytest.param(name, marks=pytest.mark.slow) for name in LAYERS if name != "resnet18")]


class OutOfPlace(TorchFunctionMode):
    """``x += y`` makes a new tensor of that name, and ``inplace=True`` is not heard."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("inplace"):
            kwargs["inplace"] = False
        if getattr(func, "__name__", "") in ("add_", "__iadd__"):
            func = torch.add
        return func(*args, **kwargs)


class Writes(TorchDispatchMode):
    """The names of operations that write into one of their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__.endswith("_"):
            self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def out_of_place(model: nn.Module) -> nn.Module:
    """The same parameters in a model whose forward writes into nothing."""
    plain = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    forward = type(model).forward

    def written_nowhere(self: nn.Module, x: Tensor) -> Any:
        with OutOfPlace():
            return forward(self, x)

    plain.__class__ = type(type(model).__name__, (type(model),), {"forward": written_nowhere})
    return plain


@pytest.fixture(scope="module", params=NETS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def nets(name: str) -> tuple[nn.Module, nn.Module]:
    """A torchvision network with random weights and healthy statistics, and its out-of-place copy."""
    model = calibrated(lambda: models.get_model(name), 0, torch.float32)
    return model, out_of_place(model)


def written(model: nn.Module) -> set[str]:
    with torch.no_grad(), Writes() as writes:
        model(INPUTS.clone())
    return {*writes.names}


def test_the_copy_is_the_same_function_and_writes_nowhere(nets: tuple[nn.Module, nn.Module]) -> None:
    model, plain = nets
    with torch.no_grad():
        logits = model(INPUTS.clone())
        assert torch.equal(plain(INPUTS.clone()), logits)
    assert logits.std() > 0.01
    assert written(model) & {"relu_", "add_"}
    assert written(plain) == set()


def answers(cls: type[Attributor[Any]], technique: Technique, nets: tuple[nn.Module, nn.Module]) -> list[Any]:
    target = 3 if technique.needs_target else None
    return [cls(model, technique).attribute(INPUTS, target) for model in nets]


@pytest.mark.parametrize("backend", BACKENDS)
def test_grad_cam(name: str, nets: tuple[nn.Module, nn.Module], backend: str) -> None:
    layers = LAYERS[name]
    inplace, plain = answers(registry.get("grad_cam", backend), GradCAM(layers=layers), nets)
    for layer in layers:
        assert torch.equal(inplace.raw[layer], plain.raw[layer])
        assert torch.equal(inplace.maps[layer], plain.maps[layer])
        assert plain.raw[layer].abs().max() > 1e-4 * plain.scores.abs().max(), "a map of rounding agrees about nothing"
        assert plain.raw[layer].std() > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_activations(name: str, nets: tuple[nn.Module, nn.Module], backend: str) -> None:
    layers = LAYERS[name]
    for asked in (layers, layers[:1]):
        inplace, plain = answers(registry.get("activations", backend), Activations(layers=asked), nets)
        for layer in asked:
            assert torch.equal(inplace.maps[layer], plain.maps[layer])
    assert (plain.maps[layers[0]] < 0).any(), "what follows rectifies it"


@pytest.mark.parametrize("pair", SOME_PAIRS)
def test_every_technique(name: str, nets: tuple[nn.Module, nn.Module], pair: tuple[str, str]) -> None:
    first, _, last = LAYERS[name]
    technique = placed(TECHNIQUES[pair[0]], {"stem": first, "body": last})
    if isinstance(technique, Occlusion):
        technique = replace(technique, window=31, stride=31)
    results = []
    for model in nets:
        inputs, target = given(technique, INPUTS, 3)
        results.append(registry.get(*pair)(model, technique).attribute(inputs, target))
    for key, map_ in results[1].raw.items():
        assert torch.equal(results[0].raw[key], map_), key
        assert map_.std() > 0


@pytest.mark.parametrize(
    ("honest", "wrong", "technique"),
    [(Honest, StoredWithoutClone, GradCAM), (HonestActivations, DetachedOnly, Activations)],
    ids=["grad_cam", "activations"],
)
def test_an_output_kept_without_a_copy_is_caught(
    name: str,
    nets: tuple[nn.Module, nn.Module],
    honest: type[Attributor[Any]],
    wrong: type[Attributor[Any]],
    technique: Callable[..., Technique],
) -> None:
    layer = LAYERS[name][0]
    asked = technique(layers=(layer,))
    good, bad = ([result.raw[layer] for result in answers(cls, asked, nets)] for cls in (honest, wrong))
    assert torch.equal(*good)
    assert torch.equal(good[1], bad[1]), "out of place it is right too"
    assert (bad[0] - bad[1]).abs().max() > 0.01 * bad[1].abs().max()
