"""HiResCAM, element-wise Grad-CAM, XGrad-CAM and Grad-CAM++: mutants, closed forms, and the edges of the formulas.

Loops, forms and scores are in ``test_any_layer``.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import ElementWiseCAM, GradCAM, GradCAMPlusPlus, HiResCAM, XGradCAM, compare, explain, registry
from attribution.techniques.cam.family import CAM
from attribution_captum import cam as by_captum
from attribution_hooks import cam as by_hooks
from tests.conftest import BACKENDS, noise
from tests.techniques.cam.nets import CASES, CLASSES
from tests.techniques.cam.test_any_layer import agree, classes, exact, raw

IMAGE = CASES["image"]
Formula = Any


def flat(tensor: Tensor) -> Tensor:
    return tensor.flatten(3)


def like(weights: Tensor, a: Tensor) -> Tensor:
    """Σ over channels of weights (N, T, D) · a (N, 1, D, h, w)."""
    return (weights[..., None, None] * a).sum(2)


def plus_plus(g: Tensor, a: Tensor, *, eps: float = 0, divided: bool = True, rectified: bool = True) -> Tensor:
    below = 2 * g**2 + flat(a).sum(3)[..., None, None] * g**3 + eps
    alpha = g**2 / below if divided else g**2
    return like(flat(alpha * (g.relu() if rectified else g)).sum(3), a)


MUTANTS: dict[str, tuple[str, Formula]] = {
    "HiResCAM with LayerCAM's ReLU": ("hires_cam", lambda self, a, g: (g.relu() * a).sum(2)),
    "HiResCAM of the neighbour's gradient": ("hires_cam", lambda self, a, g: (g.roll(1, 1) * a).sum(2)),
    "HiResCAM of the mean gradient": ("hires_cam", lambda self, a, g: like(flat(g).mean(3), a)),
    "element-wise, ReLU around the sum": ("element_wise_cam", lambda self, a, g: (g * a).sum(2).relu()),
    "element-wise, ReLU of the gradient": ("element_wise_cam", lambda self, a, g: (g.relu() * a).sum(2)),
    "XGrad-CAM of means of both": (
        "xgrad_cam", lambda self, a, g: like(flat(g).mean(3) * flat(a).mean(3) / (flat(a).mean(3) + 1e-7), a)),
    "XGrad-CAM, |A| below": ("xgrad_cam", lambda self, a, g: like(flat(g * a).sum(3) / flat(a.abs()).sum(3), a)),
    "XGrad-CAM, another constant": (
        "xgrad_cam", lambda self, a, g: like(flat(g * a).sum(3) / (flat(a).sum(3) + 1e-6), a)),
    "Grad-CAM++ with an eps": ("grad_cam_plus_plus", lambda self, a, g: plus_plus(g, a, eps=1e-6)),
    "Grad-CAM++ never divided": ("grad_cam_plus_plus", lambda self, a, g: plus_plus(g, a, divided=False)),
    "Grad-CAM++ without ReLU": ("grad_cam_plus_plus", lambda self, a, g: plus_plus(g, a, rectified=False)),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    technique, instead = MUTANTS[name]
    model, x, targets = IMAGE.model(), IMAGE.inputs(3), [[*range(CLASSES)]] * 3
    wanted = exact(technique, IMAGE, model, x, classes(targets))
    assert agree(raw(technique, IMAGE, model, x, targets), wanted)
    monkeypatch.setattr(registry.get(technique, "hooks"), "combine", instead)
    assert not agree(raw(technique, IMAGE, model, x, targets), wanted)


@pytest.mark.parametrize("name", ["HiResCAM", "ElementWiseCAM", "XGradCAM", "GradCAMPlusPlus"])
def test_captums_mutants_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another example's map, and one that is a third too large."""
    cls = getattr(by_captum, f"Captum{name}")
    technique, model, x, plain = cls.technique_type.name, IMAGE.model(), IMAGE.inputs(2), cls.column
    assert getattr(by_hooks, f"Hooks{name}").technique_type is cls.technique_type
    wanted = exact(technique, IMAGE, model, x, classes([[1], [1]]))
    assert agree(raw(technique, IMAGE, model, x, 1, "captum"), wanted)
    for wrong in (lambda *given: plain(*given).roll(1, 0), lambda *given: plain(*given) * 4 / 3):
        monkeypatch.setattr(cls, "column", wrong)
        assert not agree(raw(technique, IMAGE, model, x, 1, "captum"), wanted)


class Pooled(nn.Module):
    """A convolution, a ReLU, a mean over places, and a linear layer: CAM's own network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.conv(x)).mean((2, 3)))  # type: ignore[no-any-return]


def pooled(dead: int = 0) -> Pooled:
    """Its first channels are zero everywhere, as many as are ``dead``."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        model = Pooled().double().eval()
    with torch.no_grad():
        model.conv.weight[:dead] = 0
        list(model.conv.parameters())[1][:dead] = -1
    return model


X = noise(3, 3, 7, 9, dtype=torch.float64)


def ask(model: nn.Module, cls: type[CAM], backend: str, layer: str = "relu", target: Any = "all") -> Tensor:
    return explain(model, X.to(next(model.parameters()).dtype), cls(layers=(layer,), relu=False, upsample=False),
                   backend=backend, target=target).map  # fmt: skip


@BACKENDS
def test_before_a_mean_and_a_linear_layer_hires_is_cam_and_adds_up_to_the_score(backend: str) -> None:
    model = pooled()
    a = model.relu(model.conv(X)).detach()
    cam = torch.einsum("tk,nkhw->nthw", model.head.weight.detach(), a) / a[0, 0].numel()
    found = ask(model, HiResCAM, backend)
    assert agree(found, cam)
    assert (found - ask(model, GradCAM, backend)).abs().max() < 1e-12
    assert (found.sum((2, 3)) - (model(X) - model.head.bias)).abs().max() < 1e-12
    assert not agree(found, torch.einsum("tk,nkhw->nthw", model.head.weight.detach().relu(), a) / a[0, 0].numel())


@BACKENDS
def test_there_xgrad_is_cam_but_for_its_constant(backend: str) -> None:
    model = pooled()
    found, cam = ask(model, XGradCAM, backend), ask(model, HiResCAM, backend)
    off = (found - cam).abs().max() / cam.abs().max()
    assert 1e-10 < off < 1e-6


@BACKENDS
def test_there_element_wise_is_cam_by_its_positive_weights(backend: str) -> None:
    model = pooled()
    a = model.relu(model.conv(X)).detach()
    expected = torch.einsum("tk,nkhw->nthw", model.head.weight.detach().clamp(min=0), a) / a[0, 0].numel()
    assert agree(ask(model, ElementWiseCAM, backend), expected)


@BACKENDS
def test_there_grad_cam_plus_plus_is_known_too(backend: str) -> None:
    """g = W / P at each of the P places, so that w = P · ReLU(g) / (2 + Σ A · g)."""
    model = pooled()
    a = model.relu(model.conv(X)).detach()
    places, weight = a[0, 0].numel(), model.head.weight.detach()
    mean = a.mean((2, 3))
    w = weight.clamp(min=0)[None] / (2 + mean[:, None] * weight[None])
    assert agree(ask(model, GradCAMPlusPlus, backend), torch.einsum("ntk,nkhw->nthw", w, a))
    assert places == 35


@BACKENDS
@pytest.mark.parametrize("cls", [XGradCAM, GradCAMPlusPlus, HiResCAM, ElementWiseCAM])
def test_channels_of_zeros_count_nothing(cls: type[CAM], backend: str) -> None:
    """0/0 is 0: the map is finite, and that of the other channels."""
    model = pooled(dead=2)
    whole = ask(model, cls, backend)
    assert not model.relu(model.conv(X))[:, :2].any()
    assert whole.isfinite().all()
    with torch.no_grad():
        model.head.weight[:, :2] = 50
    assert (ask(model, cls, backend) - whole).abs().max() <= 1e-12 * whole.abs().max()


@BACKENDS
def test_gradients_of_zero_are_no_division_by_zero(backend: str) -> None:
    model = pooled()
    with torch.no_grad():
        model.head.weight[:, :4] = 0
    found = ask(model, GradCAMPlusPlus, backend)
    assert found.isfinite().all()
    assert found.any()


@BACKENDS
@pytest.mark.parametrize("size", [1e-6, 1e-16])
def test_small_gradients_keep_their_weights_in_float32(size: float, backend: str) -> None:
    """Their squares are no float32 any more; eps = 1e-6 in the denominator would be all that is left."""
    model = pooled()
    with torch.no_grad():
        model.head.weight *= size
    wanted = ask(model, GradCAMPlusPlus, backend)
    found = ask(model.float(), GradCAMPlusPlus, backend)
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


@BACKENDS
def test_grad_cam_plus_plus_of_a_hundred_times_the_score_is_another_map(backend: str) -> None:
    model, many = IMAGE.model(), IMAGE.inputs(2)
    question = GradCAMPlusPlus(layers=("conv",), relu=False)

    def of(factor: float) -> Tensor:
        return explain(model, many, question, target=lambda output: factor * output[:, 1], backend=backend).raw["conv"]

    one, hundred = (each / each.abs().max() for each in (of(1), of(100)))
    assert (one - hundred).abs().max() > 0.05
    scaled = explain(model, many, HiResCAM(layers=("conv",)), target=lambda output: 100 * output[:, 1], backend=backend)
    plain = explain(model, many, HiResCAM(layers=("conv",)), target=1, backend=backend)
    assert agree(scaled.raw["conv"], 100 * plain.raw["conv"])


@pytest.mark.parametrize("cls", [HiResCAM, ElementWiseCAM, XGradCAM, GradCAMPlusPlus])
def test_the_backends_agree_in_float32_and_signs_are_as_stated(cls: type[CAM]) -> None:
    model = pooled().float()
    question = cls(layers=("relu",), relu=False)
    answer = compare(model, X.float(), question, target="all")
    assert answer.holds
    assert question.signed == (cls is not ElementWiseCAM)
    assert bool((answer.attributions["hooks"].map < 0).any()) == (cls in (HiResCAM, XGradCAM))
