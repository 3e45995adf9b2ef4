"""Activations of the hooks backend: copied only where something could still write, never on anybody else's memory."""

import copy
import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import models

from attribution import Activations, InputError, LayerError, compare, explain
from tests.conftest import build, noise

INPUTS = noise(2, 3, 17, 23)


class Clones(TorchDispatchMode):
    """The shapes of everything that is cloned."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.clone.default:
            self.shapes.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


def cloned(model: nn.Module, technique: Activations, inputs: Tensor = INPUTS) -> list[tuple[int, ...]]:
    """What one warm call clones, apart from its inputs."""
    explain(model, inputs, technique)
    with Clones() as clones:
        explain(model, inputs, technique)
    return [shape for shape in clones.shapes if shape != tuple(inputs.shape)]


STEM, BODY = (2, 6, 17, 23), (2, 8, 6, 9)


@pytest.mark.parametrize(
    ("technique", "expected"),
    [
        (Activations(layers=("stem",)), []),
        (Activations(layers=("body",)), []),
        (Activations(layers=("stem", "body")), [STEM]),
        (Activations(layers=("body", "stem", "pool")), [STEM, (2, 6, 8, 11)]),
        (Activations(layers=("stem#0", "body")), [STEM]),
        (Activations(layers=("stem", "body"), reduce="mean"), []),
    ],
    ids=repr,
)
def test_only_what_the_forward_goes_on_from_is_copied(technique: Activations, expected: list[Any]) -> None:
    assert cloned(build("cnn"), technique) == expected


def test_the_counter_sees_a_copy() -> None:
    with Clones() as clones:
        torch.zeros(2, 3).clone()
    assert clones.shapes == [(2, 3)]


class Tricky(nn.Module):
    """A layer whose output lies on somebody's memory."""

    def __init__(self, give: Callable[["Tricky", Tensor], Tensor]) -> None:
        super().__init__()
        self.give = give
        self.first, self.layer, self.last = nn.Conv2d(3, 3, 1), Giving(self), nn.ReLU()
        self.weight = nn.Parameter(torch.randn(2, 3, 17, 23))
        self.grid: Tensor
        self.register_buffer("grid", torch.randn(2, 3, 17, 23))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(self.first(x)))  # type: ignore[no-any-return]


class Giving(nn.Module):
    def __init__(self, owner: Tricky) -> None:
        super().__init__()
        vars(self)["owner"] = owner

    def forward(self, x: Tensor) -> Tensor:
        owner: Tricky = vars(self)["owner"]
        return owner.give(owner, x)


CACHE = noise(2, 3, 17, 23, seed=5)
GIVEN: dict[str, Callable[[Tricky, Tensor], Tensor]] = {
    "parameter": lambda model, x: model.weight,
    "part of a parameter": lambda model, x: model.weight[:, :2],
    "buffer": lambda model, x: model.grid,
    "a constant of the module": lambda model, x: CACHE,
    "expanded": lambda model, x: model.weight[:1].expand(2, 3, 17, 23),
    "its input": lambda model, x: x,
    "a view": lambda model, x: x.flatten(2).view_as(x),
    "fresh": lambda model, x: x + 1,
}


def memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@pytest.mark.parametrize("layers", [("layer",), ("first", "layer"), ("layer", "last")], ids=repr)
@pytest.mark.parametrize("name", GIVEN)
def test_a_map_lies_on_its_own_memory(name: str, layers: tuple[str, ...]) -> None:
    model = Tricky(GIVEN[name]).eval()
    with torch.no_grad():
        expected = GIVEN[name](model, model.first(INPUTS)).clone()
    for _ in range(2):
        before = [tensor.clone() for tensor in (CACHE, *model.state_dict().values())]
        maps = explain(model, INPUTS, Activations(layers=layers)).maps
        others = [INPUTS, CACHE, *model.parameters(), *model.buffers()]
        assert len({memory(map_) for map_ in maps.values()} - {*map(memory, others)}) == len(maps)
        assert torch.equal(maps["layer"], expected)
        for map_ in maps.values():
            assert map_.untyped_storage().nbytes() == map_.nbytes, "it keeps no more alive than itself"
            map_.fill_(7)
        assert all(map(torch.equal, before, (CACHE, *model.state_dict().values())))


class Unwinding(nn.Module):
    """Writes into what a layer gave while the forward is being ended."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.same, self.relu = nn.Conv2d(3, 4, 1), nn.Identity(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        try:
            y = self.same(x)
        finally:
            x.mul_(2)
        return self.relu(y)  # type: ignore[no-any-return]


def test_what_is_written_while_the_forward_ends_does_not_reach_the_map() -> None:
    model = Unwinding().eval()
    with torch.no_grad():
        expected = model.conv(INPUTS)
    for _ in range(2):
        assert torch.equal(explain(model, INPUTS, Activations(layers=("same",))).map, expected)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_in_place_nets_give_what_their_out_of_place_copies_give(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = models.get_model(name).eval()
    plain = copy.deepcopy(model)
    for module in plain.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    layers = ("layer1.0.bn1", "layer1.0.conv2", "layer2.0.conv1")
    if name == "squeezenet1_1":
        layers = ("features.0", "features.3.squeeze", "features.4.expand1x1")
    inputs = noise(1, 3, 65, 47)
    seen: dict[str, Tensor] = {}
    for layer in layers:
        plain.get_submodule(layer).register_forward_hook(
            lambda module, args, output, layer=layer: seen.update({layer: output.clone()})
        )
    with torch.no_grad():
        plain(inputs)
    for asked in (layers, layers[:1], layers[1:2], layers[2:]):
        maps = explain(model, inputs, Activations(layers=asked)).maps
        assert all(torch.equal(maps[layer], seen[layer]) for layer in asked)
        assert all((map_ < 0).any() for map_ in maps.values())


def test_a_run_of_a_reused_module_ends_the_forward_too() -> None:
    model = models.resnet18().eval()
    ran: list[str] = []
    inputs = noise(1, 3, 33, 33)
    explain(model, inputs, Activations(layers=("layer1.0.relu#0",)))
    for name in ("layer1.0.conv1", "layer1.0.conv2", "layer2"):
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    for _ in range(2):
        ran.clear()
        explain(model, inputs, Activations(layers=("layer1.0.relu#0",)))
    assert ran == ["layer1.0.conv1"]


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_no_activation_awaits_the_collector() -> None:
    seen: list[weakref.ref[Tensor]] = []

    class Telling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = build("cnn")

        def forward(self, x: Tensor) -> Tensor:
            x = self.net.stem(x)  # type: ignore[operator]
            seen.append(weakref.ref(x))
            return self.net.body(x)  # type: ignore[operator, no-any-return]

    model = Telling()
    for reduce in ("none", "mean"):
        for _ in range(2):
            explain(model, INPUTS, Activations(layers=("net.body",), reduce=reduce))
    assert len(seen) >= 4
    assert all(ref() is None for ref in seen)


@pytest.mark.parametrize("backend", ["hooks", "captum"])
def test_a_mean_is_the_mean_of_the_map(model_name: str, backend: str) -> None:
    model, layers = build(model_name, torch.float64), ("stem", "body")
    inputs = INPUTS.double()
    maps = explain(model, inputs, Activations(layers=layers)).maps
    means = explain(model, inputs, Activations(layers=layers, reduce="mean"), backend=backend)
    for layer in layers:
        values = maps[layer]
        total = torch.zeros(values.shape[:2], dtype=torch.float64)
        for i in range(values.shape[2]):
            for j in range(values.shape[3]):
                total += values[:, :, i, j]
        assert means.maps[layer].shape == values.shape[:2]
        assert (means.maps[layer] - total / values[0, 0].numel()).abs().max() <= 1e-12 * values.abs().max()
    means.figure()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_backends_agree_about_means(model_name: str, dtype: torch.dtype) -> None:
    technique = Activations(layers=("stem", "body"), reduce="mean")
    assert compare(build(model_name, dtype), INPUTS.to(dtype), technique).holds


@pytest.mark.parametrize("wrong", [lambda m: m.mean(3), lambda m: m[..., 1:].mean((2, 3)), lambda m: m.sum((2, 3))])
def test_another_mean_is_caught(wrong: Callable[[Tensor], Tensor], registered: Any) -> None:
    from attribution import Attributor, Run, registry

    def compute(self: Attributor[Any], run: Run[Any]) -> dict[str, Tensor]:
        asked = Activations(layers=("body",))
        whole = registry.get("activations", "hooks")(self.model, asked, self.execution)
        return {name: wrong(map_) for name, map_ in whole.compute(replace(run, technique=asked)).items()}

    body = {"technique_type": Activations, "backend": "stranger", "compute": compute}
    registered(type("Stranger", (Attributor,), body))
    assert not compare(
        build("cnn"), INPUTS, Activations(layers=("body",), reduce="mean"), backends=("hooks", "stranger")
    ).holds


@pytest.mark.parametrize("backend", ["hooks", "captum"])
def test_a_mean_needs_a_grid(backend: str) -> None:
    with pytest.raises(LayerError, match=r"'head' gives shape \(\d, 5\); a mean over space needs \(N, D, h, w\)"):
        explain(build("cnn"), INPUTS, Activations(layers=("head",), reduce="mean"), backend=backend)
    with pytest.raises(InputError, match=r"Activations\.reduce is 'max'; give 'none' or 'mean'"):
        Activations(reduce="max")  # type: ignore[arg-type]
