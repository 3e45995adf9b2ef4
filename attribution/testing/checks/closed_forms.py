"""Answers known on paper, for techniques of the core."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution.scores.classes import ClassScore
from attribution.technique import Technique
from attribution.techniques import (
    AblationCAM,
    Activations,
    EigenCAM,
    ElementWiseCAM,
    FilterVisualization,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    Occlusion,
    ScoreCAM,
    XGradCAM,
)
from attribution.techniques.cam.family import CAM
from attribution.testing.checks.check import Template, check, require
from attribution.testing.checks.subject import CLASSES, IMAGES, Subject
from attribution.testing.models.small import calibrated, small_cnn

_DOUBLE = torch.float64

Formula = Callable[[Tensor, Tensor], Tensor]
"""Gradient (1, T, K, 1) and activation (N, 1, K, P) → what each channel adds at each place."""


def _is(kind: type[Technique]) -> Callable[[Subject], bool]:
    return lambda subject: isinstance(subject.technique, kind)


def _close(found: Tensor, expected: Tensor, subject: Subject) -> bool:
    relative = 1e-10 if subject.cls.computes_in in (None, torch.float64) else 1e-5
    same = found.shape == expected.shape
    return same and bool((found - expected).abs().max() <= relative * expected.abs().max())


def _cam_model() -> nn.Module:
    """Body → mean over space → linear: the network of the CAM paper."""

    def build() -> nn.Module:
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))
        stem, body = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        return nn.Sequential(OrderedDict(stem=stem, relu=nn.ReLU(inplace=True), body=body, head=head))

    return calibrated(build, 0, _DOUBLE)


@check("Activations: value", _is(Activations))
def check_activations_are_the_layers_output(subject: Subject) -> None:
    """Before the in-place ReLU that follows."""
    model, inputs = subject.on(small_cnn(dtype=_DOUBLE)), subject.noise(dtype=_DOUBLE)
    found = subject.ask(model, inputs, technique=Activations(layers=("stem", "body"))).maps
    with torch.no_grad():
        stem = model.get_submodule("stem")(inputs)
        body = model.get_submodule("body")(F.max_pool2d(stem.relu(), 2))
    for name, expected in (("stem", stem), ("body", body)):
        require(torch.equal(found[name], expected), f"{name!r} other than the layer's output", "its very bits")


@check("Grad-CAM: formula", _is(GradCAM))
def check_grad_cam_is_cam_on_a_global_mean(subject: Subject) -> None:
    """Weights of the linear layer over h·w; the map adds up to the logit without its bias."""
    model, inputs = subject.on(_cam_model()), subject.noise(dtype=_DOUBLE)
    raw = subject.ask(model, inputs, "all", technique=GradCAM(layers=("body",))).raw["body"]
    linear = model.get_submodule("head.2")
    with torch.no_grad():
        activation = model.get_submodule("body")(model.get_submodule("stem")(inputs).relu())
        logits = model(inputs)
    weight, bias = (parameter.detach() for parameter in linear.parameters())
    cam = torch.einsum("tk,nkhw->nthw", weight, activation) / activation[0, 0].numel()
    require(_close(raw, cam, subject), f"a raw map off by {(raw - cam).abs().max():.3g}", "Σ w·A / (h·w)")
    require(_close(raw.sum(dim=(2, 3)), logits - bias, subject), "a map that does not add up", "the logit")


@check("LayerCAM: formula", _is(LayerCAM))
def check_layer_cam_takes_positive_gradients_only(subject: Subject) -> None:
    """On the same network those are the positive weights of the linear layer over h·w."""
    model, inputs = subject.on(_cam_model()), subject.noise(dtype=_DOUBLE)
    raw = subject.ask(model, inputs, "all", technique=LayerCAM(layers=("body",))).raw["body"]
    weight = next(model.get_submodule("head.2").parameters()).detach()
    with torch.no_grad():
        activation = model.get_submodule("body")(model.get_submodule("stem")(inputs).relu())
    expected = torch.einsum("tk,nkhw->nthw", weight.clamp(min=0), activation) / activation[0, 0].numel()
    off = f"a raw map off by {(raw - expected).abs().max():.3g}"
    require(_close(raw, expected, subject), off, "Σ ReLU(w)·A / (h·w)")


def _on_a_mean(kind: type[CAM], formula: Formula) -> Template:
    """On the same network the gradient of a channel is its weight of the linear layer over h·w, at all places."""

    def body(subject: Subject) -> None:
        model, inputs = subject.on(_cam_model()), subject.noise(dtype=_DOUBLE)
        raw = subject.ask(model, inputs, "all", technique=kind(layers=("body",))).raw["body"]
        weight = next(model.get_submodule("head.2").parameters()).detach()
        with torch.no_grad():
            a = model.get_submodule("body")(model.get_submodule("stem")(inputs).relu())
        places = a[0, 0].numel()
        expected = formula((weight / places)[None, :, :, None], a.flatten(2)[:, None]).sum(dim=2).reshape(raw.shape)
        off = f"a raw map off by {(raw - expected).abs().max():.3g}"
        require(_close(raw, expected, subject), off, "the formula for a constant gradient")

    return Template(f"{kind.name}_of_a_global_mean", "LayerCAM: formula", body, _is(kind))


def _xgrad(g: Tensor, a: Tensor) -> Tensor:
    total = a.sum(dim=3, keepdim=True)
    return g * total / (total + 1e-7) * a


def _plus_plus(g: Tensor, a: Tensor) -> Tensor:
    return a.shape[3] * g.relu() / (2 + a.sum(dim=3, keepdim=True) * g) * a


_OF_A_MEAN = (
    _on_a_mean(HiResCAM, lambda g, a: g * a),
    _on_a_mean(ElementWiseCAM, lambda g, a: (g * a).relu()),
    _on_a_mean(XGradCAM, _xgrad),
    _on_a_mean(GradCAMPlusPlus, _plus_plus),
)


@check("Ablation-CAM: formula", _is(AblationCAM))
def check_ablation_cam_weighs_what_a_global_mean_loses(subject: Subject) -> None:
    """On the same network a logit loses the channel's weight of the linear layer times its mean."""
    model, inputs = subject.on(_cam_model()), subject.noise(dtype=_DOUBLE)
    raw = subject.ask(model, inputs, "all", technique=AblationCAM(layers=("body",))).raw["body"]
    weight = next(model.get_submodule("head.2").parameters()).detach()
    with torch.no_grad():
        a = model.get_submodule("body")(model.get_submodule("stem")(inputs).relu())
        lost = weight * a.mean(dim=(2, 3))[:, None] / model(inputs).abs()[..., None]
    expected = torch.einsum("ntk,nkhw->nthw", lost, a)
    require(
        _close(raw, expected, subject), f"a raw map off by {(raw - expected).abs().max():.3g}", "Σ (S − S[k])/|S|·A"
    )


@check("Score-CAM: formula", _is(ScoreCAM))
def check_score_cam_of_a_linear_model_sees_the_masked_mean(subject: Subject) -> None:
    """Without a bend a logit of the masked input is linear in the mean of each masked channel."""

    def build() -> nn.Module:
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))
        return nn.Sequential(OrderedDict(body=nn.Conv2d(3, 4, 1), head=head))

    model, inputs = subject.on(calibrated(build, 0, _DOUBLE)), subject.noise(dtype=_DOUBLE)
    linear, body = model.get_submodule("head.2"), model.get_submodule("body")
    with torch.no_grad():
        next(linear.parameters()).mul_(20)  # else the scores lie near to one another, and the weights are all alike
        a = body(inputs)
        low, high = a.amin(dim=(2, 3), keepdim=True), a.amax(dim=(2, 3), keepdim=True)
        means = torch.einsum("nchw,nkhw->nkc", inputs, (a - low) / (high - low)) / a[0, 0].numel()
        weight, bias = body.parameters()
        weights = linear(means @ weight.flatten(1).T + bias).softmax(dim=1)
    expected = torch.einsum("nkt,nkhw->nthw", weights, a)
    raw = subject.ask(model, inputs, "all", technique=ScoreCAM(layers=("body",))).raw["body"]
    off = f"a raw map off by {(raw - expected).abs().max():.3g}"
    require(_close(raw, expected, subject), off, "Σ softmax(scores of the masked means)·A")


@check("Eigen-CAM: formula", _is(EigenCAM))
def check_eigen_cam_of_one_pattern_is_that_pattern(subject: Subject) -> None:
    """Channels that are multiples of one map: its deviation from the mean, times the length of the multiples."""
    model, inputs = subject.on(_cam_model()), subject.noise(dtype=_DOUBLE)
    body = model.get_submodule("body")
    weight = next(body.parameters())
    multiples = subject.on(torch.tensor([1.5, -0.5, 0.25, 1.0], dtype=_DOUBLE))
    with torch.no_grad():
        weight.copy_(multiples[:, None, None, None] * weight[:1].clone())
        pattern = F.conv2d(model.get_submodule("stem")(inputs).relu(), weight[:1] / multiples[0])
    expected = (pattern - pattern.mean(dim=(2, 3), keepdim=True)) * multiples.square().sum().sqrt()
    raw = subject.ask(model, inputs, technique=EigenCAM(layers=("body",))).raw["body"]
    require(_close(raw, expected, subject), f"a raw map off by {(raw - expected).abs().max():.3g}", "the pattern")


@check("Grad-CAM: ReLU, then upsampling", _is(GradCAM))
def check_grad_cam_is_rectified_before_it_is_enlarged(subject: Subject) -> None:
    """And raw maps keep their negative values."""
    result = subject.ask(subject.on(small_cnn()), subject.noise(), "all", technique=GradCAM(layers=("body",)))
    raw = result.raw["body"]
    require(bool((raw < 0).any()), "raw maps without a negative value", "evidence against the class too")
    expected = F.interpolate(raw.relu(), size=(17, 23), mode="bilinear", align_corners=False)
    require(torch.allclose(result.maps["body"], expected, atol=1e-6), "another map", "upsample(ReLU(raw))")


@check("Occlusion: sign", _is(Occlusion))
def check_occlusion_of_a_linear_model_is_the_covered_sum(subject: Subject) -> None:
    """Positive where covering hurts; the mean over the windows that cover a pixel."""
    height, width, window, stride, baseline = 7, 9, 4, 2, (0.5, -1.0, 0.25)

    def build() -> nn.Module:
        return nn.Sequential(OrderedDict(flat=nn.Flatten(), head=nn.Linear(3 * height * width, 2)))

    model = subject.on(calibrated(build, 0, _DOUBLE, size=(height, width)))
    inputs = subject.noise(dtype=_DOUBLE, size=(height, width))
    technique = Occlusion(window=window, stride=stride, baseline=baseline)
    found = subject.ask(model, inputs, ClassScore("all", of="logit"), technique=technique).raw["input"]
    weight = next(model.get_submodule("head").parameters()).detach().reshape(1, 2, 3, height, width)
    evidence = weight * (inputs[:, None] - subject.on(torch.tensor(baseline, dtype=_DOUBLE)).reshape(1, 1, 3, 1, 1))
    expected, count = inputs.new_zeros(IMAGES, 2, height, width), inputs.new_zeros(height, width)
    for top in (0, 2, 4):
        for left in (0, 2, 4, 6):
            here = (..., slice(top, top + window), slice(left, left + window))
            expected[here] += evidence[here].sum(dim=(2, 3, 4))[..., None, None]
            count[here] += 1
    require(_close(found, expected / count, subject), "another map", "the mean covered evidence")


@check("Filters: ascent", _is(FilterVisualization))
def check_filter_images_climb(subject: Subject) -> None:
    """The objective of the last image is larger than that of the first."""
    objective = subject.ask(subject.on(small_cnn(dtype=_DOUBLE))).extras["objective"]
    require(bool((objective[-1] > objective[0]).all()), f"objectives {objective.tolist()}", "rising ones")


CHECKS: tuple[Template, ...] = (
    check_activations_are_the_layers_output,
    check_grad_cam_is_cam_on_a_global_mean,
    check_layer_cam_takes_positive_gradients_only,
    *_OF_A_MEAN,
    check_ablation_cam_weighs_what_a_global_mean_loses,
    check_score_cam_of_a_linear_model_sees_the_masked_mean,
    check_eigen_cam_of_one_pattern_is_that_pattern,
    check_grad_cam_is_rectified_before_it_is_enlarged,
    check_occlusion_of_a_linear_model_is_the_covered_sum,
    check_filter_images_climb,
)
