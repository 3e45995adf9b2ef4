"""The gradient of a layer is that of the tensor it returned, every reader counted, as plain autograd has it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, FilterVisualization, GradCAM, LayerError, compare, explain
from attribution.testing import guard
from tests.backends.readers import CASES, Forward, Net, Same, of_a
from tests.conftest import BACKENDS, noise

X = noise(3, 3, 9, 11, dtype=torch.float64)


def nets(name: str, *, frozen: bool = False) -> tuple[Net, Net]:
    a, steps, twin, twin_steps = CASES[name]
    model, other = Net(a(), steps).eval(), Net(twin(), twin_steps).eval()
    if frozen:
        model.requires_grad_(False)
    with torch.no_grad():
        assert torch.allclose(model(X.clone()), other(X.clone()), rtol=0, atol=1e-12), "the same function"
    return model, other


def by_autograd(twin: Net, classes: list[int]) -> Tensor:
    """(N, T, h, w)."""
    caught: list[Tensor] = []
    handle = twin.a.register_forward_hook(lambda module, args, output: caught.append(output))
    logits = twin(X)
    handle.remove()
    maps = []
    for label in classes:
        (gradient,) = torch.autograd.grad(logits[:, label].sum(), caught[0], retain_graph=True)
        maps.append((gradient.mean((2, 3), keepdim=True) * caught[0]).sum(1).detach())
    return torch.stack(maps, dim=1)


@BACKENDS
@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen"])
@pytest.mark.parametrize("classes", [[1], [1, 3, 0]], ids=["one target", "targets"])
@pytest.mark.parametrize("name", CASES)
def test_grad_cam_is_plain_autograd(name: str, classes: list[int], frozen: bool, backend: str) -> None:
    model, twin = nets(name, frozen=frozen)
    wanted = by_autograd(twin, classes)
    for images in (X, X[:1]):
        with guard(model, images):
            found = explain(
                model, images, GradCAM(layers=("a",), relu=False), backend=backend, target=[classes] * len(images)
            )
        assert (found.raw["a"] - wanted[: len(images)]).abs().max() <= 1e-10 * wanted.abs().max()
    with torch.no_grad():
        assert torch.allclose(found.scores, model(X[:1].clone())[:, classes], rtol=0, atol=1e-12)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CASES)
def test_both_backends_mean_the_same(name: str) -> None:
    model, twin = nets(name)
    assert compare(model, X, GradCAM(layers=("a",)), target=1).holds
    question = FilterVisualization(
        layer="a", channels=(0, 4), steps=1, parametrization="pixel", jitter=0, size=(9, 11), in_channels=3
    )
    found = compare(model, None, question)
    assert found.holds
    wanted = explain(twin, None, question).map
    for answer in found.attributions.values():
        assert (answer.map - wanted).abs().max() <= 1e-10 * wanted.abs().max()
    values = compare(model, X, Activations(layers=("a",)))
    assert values.holds


@pytest.mark.parametrize("name", CASES)
def test_several_layers_at_once(name: str) -> None:
    """The first layer's graph has the second's readers."""
    model, twin = nets(name)
    found = explain(model, X, GradCAM(layers=("c", "a"), relu=False), target=1)
    wanted = by_autograd(twin, [1])
    assert (found.raw["a"] - wanted).abs().max() <= 1e-10 * wanted.abs().max()


def shortcut(m: Any, x: Tensor) -> Tensor:
    """A shortcut that is the very tensor which is then written into, as some residual blocks have it."""
    y = m.c(x)
    short = m.a(y)
    y.relu_()
    return m.d(y) + short  # type: ignore[no-any-return]


def test_a_shortcut_that_is_written_into_together_with_its_input() -> None:
    """Watching changes no logit: the shortcut is rectified as well."""
    model = Net(nn.Identity(), shortcut).eval()
    twin = Net(Same(), of_a(lambda m, z: m.d(z.relu()) + z.relu())).eval()
    with torch.no_grad():
        assert torch.allclose(model(X.clone()), twin(X.clone()), rtol=0, atol=1e-12)
    wanted = by_autograd(twin, [1, 2])
    for layers in (("a",), ("c", "a")):
        found = explain(model, X, GradCAM(layers=layers, relu=False), target=[[1, 2]] * 3)
        assert (found.raw["a"] - wanted).abs().max() <= 1e-10 * wanted.abs().max()
    with pytest.raises(LayerError, match=r"layer 'a' returns a tensor that is written into later.*backend='hooks'"):
        explain(model, X, GradCAM(layers=("a",)), target=1, backend="captum")


def no_grad_inside(m: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        z = m.a(m.c(x))
    return m.d(z).relu()  # type: ignore[no-any-return]


@torch.no_grad()
def no_grad_around(m: Any, x: Tensor) -> Tensor:
    return m.d(m.a(m.c(x))).relu()  # type: ignore[no-any-return]


def frozen_trunk(m: Any, x: Tensor) -> Tensor:
    with torch.set_grad_enabled(not m.finetune):
        z = m.d(m.a(m.c(x)))
    return m.e(z).relu()  # type: ignore[no-any-return]


@BACKENDS
@pytest.mark.parametrize("steps", [no_grad_around, no_grad_inside, frozen_trunk])
def test_a_gradient_that_is_cut_is_an_error(steps: Forward, backend: str) -> None:
    model = Net(nn.Tanh(), steps).eval()
    for layers in (("a",), ("c",)):
        with guard(model, X), pytest.raises(LayerError, match="gradient is cut"):
            explain(model, X, GradCAM(layers=layers), target=1, backend=backend)


class Pair(nn.Module):
    """Computes something from its output before it returns both."""

    def __init__(self) -> None:
        super().__init__()
        self.tanh = nn.Tanh()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.tanh(x)
        return y, 3 * y * y


def both_items(m: Any, x: Tensor) -> Tensor:
    y, z = m.a(m.c(x))
    return m.d(y) + z  # type: ignore[no-any-return]


def test_what_a_layer_computes_from_an_item_and_returns_beside_it() -> None:
    model, twin = Net(Pair(), both_items).eval(), Net(nn.Tanh(), of_a(lambda m, z: m.d(z), lambda m, z: 3 * z * z))
    wanted = by_autograd(twin, [1, 2])
    found = explain(model, X, GradCAM(layers=("a[0]",), relu=False), target=[[1, 2]] * 3).raw["a[0]"]
    assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max()


class Constant(nn.Module):
    """Returns what is the model's own, whatever it is given."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        value = torch.randn(1, 6, 9, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        if kind == "parameter":
            self.value = nn.Parameter(value, requires_grad=False)
        elif kind == "buffer":
            self.register_buffer("value", value)
        else:
            self.value = value  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return self.value


@pytest.mark.parametrize("kind", ["parameter", "buffer", "attribute"])
def test_a_layer_that_returns_what_is_the_models_own(kind: str) -> None:
    """Its gradient is had, and the model's tensor does not begin to require one."""
    model = Net(Constant(kind), lambda m, x: m.d(m.c(x)) * m.a(x)).eval()
    for _ in range(2):
        with guard(model, X[:1]):
            found = explain(model, X[:1], GradCAM(layers=("a",), relu=False), target=1)
        assert found.map.abs().max() > 1e-4
        assert not model.a.value.requires_grad
