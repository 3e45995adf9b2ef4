"""Grad-CAM and LayerCAM of layers of every form, by both backends and by loops, of every kind of score."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import (
    ElementWiseCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    RegionScore,
    SimilarityScore,
    ValueScore,
    XGradCAM,
    explain,
)
from attribution.techniques.cam.family import CAM
from attribution.techniques.cam.tokens import Grid
from attribution_captum.cam import CaptumLayerCAM
from attribution_hooks.cam import HooksGradCAM, HooksLayerCAM
from tests.conftest import BACKENDS, noise
from tests.techniques.cam import loops
from tests.techniques.cam.nets import CASES, CLASSES, Case, Segments

TECHNIQUES: dict[str, type[CAM]] = {
    "grad_cam": GradCAM,
    "layer_cam": LayerCAM,
    "hires_cam": HiResCAM,
    "element_wise_cam": ElementWiseCAM,
    "xgrad_cam": XGradCAM,
    "grad_cam_plus_plus": GradCAMPlusPlus,
}
BOTH = pytest.mark.parametrize("technique", TECHNIQUES)
IMAGE = CASES["image"]


def agree(found: Tensor, exact: Tensor, blank: int = 0) -> bool:
    """Within 1e-10 of each map's largest value; so many maps are zero, and prove nothing else."""
    assert found.shape == exact.shape
    size = exact.abs().flatten(2).amax(2) if exact.ndim > 2 else exact.abs()
    assert (size <= 1e-6).sum() == (size == 0).sum() == blank, "a map without signal proves nothing"
    off = (found - exact).abs().flatten(2).amax(2) if exact.ndim > 2 else (found - exact).abs()
    return bool((off <= 1e-10 * size).all())


def classes(targets: Sequence[Sequence[int]]) -> Callable[[Any, int], list[Tensor]]:
    return lambda output, n: [output[0, c] for c in targets[n]]


def exact(name: str, case: Case, model: nn.Module, x: Tensor, scores: Callable[[Any, int], Sequence[Tensor]]) -> Tensor:
    layer = model.get_submodule(case.layer)
    rows = []
    for n in range(len(x)):
        activation, found = loops.gradients(lambda n=n: model(x[n : n + 1]), layer, lambda o, n=n: scores(o, n))  # type: ignore[misc]
        rows.append(loops.cam(loops.FORMULAS[name], case.values, case.places, activation, found))
    return torch.stack(rows)


def raw(technique: str, case: Case, model: nn.Module, x: Tensor, target: Any, backend: str = "hooks") -> Tensor:
    question = TECHNIQUES[technique](layers=(case.layer,), relu=False)
    return explain(model, x, question, target=target, backend=backend).raw[case.layer]


@BOTH
@BACKENDS
@pytest.mark.parametrize("examples", [1, 3])
@pytest.mark.parametrize("form", CASES)
def test_of_every_form(form: str, examples: int, backend: str, technique: str) -> None:
    case = CASES[form]
    model, x = case.model(), case.inputs(examples)
    targets = [[0, 3], [4, 1], [2, 5]][:examples]
    result = explain(model, x, TECHNIQUES[technique](layers=(case.layer,)), target=targets, backend=backend)
    wanted = exact(technique, case, model, x, classes(targets))
    negative = (form, technique, examples) == ("vectors", "element_wise_cam", 3)  # is all evidence for one target
    assert agree(result.raw[case.layer], wanted, blank=int(negative))
    assert not agree(result.raw[case.layer].roll(1, dims=1), wanted, blank=int(negative)), (
        "the neighbour's target is another map"
    )
    if len(case.places) > 1:
        turned = result.raw[case.layer].transpose(-1, -2).reshape(wanted.shape)
        assert not agree(turned, wanted), "columns are not rows"
    places = x.shape[2:] if len(case.places) == x.ndim - 2 else case.places
    assert result.map.shape == (examples, 2, *places)
    assert (result.map >= 0).all()
    assert result.provenance.get(f"tokens {case.layer}", "") == case.told
    kept = f"as computed, since no explained input has {len(case.places)} axes of places"
    assert result.provenance.get(f"size {case.layer}") == (None if case.places else kept)


@BOTH
@pytest.mark.parametrize("form", ["series", "image", "volume"])
def test_maps_are_rectified_and_then_enlarged(form: str, technique: str) -> None:
    case = CASES[form]
    x = case.inputs(2)
    result = explain(case.model(), x, TECHNIQUES[technique](layers=(case.layer,)), target=1)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(case.places)]
    wanted = nn.functional.interpolate(result.raw[case.layer].relu(), size=x.shape[2:], mode=mode)
    assert torch.equal(result.map, wanted)
    assert result.provenance.get(f"size {case.layer}") is None
    other = nn.functional.interpolate(result.raw[case.layer], size=x.shape[2:], mode=mode).relu()
    seen = not torch.allclose(result.map, other)
    assert seen or technique == "element_wise_cam", "the order is seen, unless nothing is negative"


def mask() -> Tensor:
    found = torch.zeros(3, 7, 11, dtype=torch.bool)
    found[0, :3, :4] = found[1, 2:, 5:] = found[2, 6, :] = True
    return found


REFERENCES = noise(3, CLASSES, dtype=torch.float64, seed=7)

SCORES: dict[str, tuple[Any, Callable[[Any, int], list[Tensor]]]] = {
    "a class": (3, lambda o, n: [o[0, 3]]),
    "a value": (ValueScore(2), lambda o, n: [o[0, 2]]),
    "a similarity": (
        SimilarityScore(REFERENCES),
        lambda o, n: [(o[0] * REFERENCES[n]).sum() / (o[0].norm() * REFERENCES[n].norm())],
    ),
    "a function": (lambda output: output.square().sum(1), lambda o, n: [sum(v * v for v in o[0])]),
    "two functions": (
        lambda output: torch.stack([output[:, 0] * output[:, 1], output.exp().sum(1)], dim=1),
        lambda o, n: [o[0, 0] * o[0, 1], o[0].exp().sum()],
    ),
}


@BOTH
@BACKENDS
@pytest.mark.parametrize("name", SCORES)
def test_of_every_score(name: str, backend: str, technique: str) -> None:
    score, by_hand = SCORES[name]
    model, x = IMAGE.model(), IMAGE.inputs(3)
    found = raw(technique, IMAGE, model, x, score, backend)
    assert agree(found, exact(technique, IMAGE, model, x, by_hand))
    assert not agree(found, exact(technique, IMAGE, model, x, lambda o, n: [3 * s for s in by_hand(o, n)]))


@BOTH
@BACKENDS
def test_of_a_region_of_each_image(backend: str, technique: str) -> None:
    case = Case(Segments, (3, 7, 11), "conv", lambda a: a[0].flatten(1), (7, 11))
    model, x = case.model(), case.inputs(3)
    found = raw(technique, case, model, x, RegionScore(4, mask()), backend)
    assert agree(found, exact(technique, case, model, x, lambda o, n: [o[0, 4][mask()[n]].mean()]))
    other = exact(technique, case, model, x, lambda o, n: [o[0, 4][mask()[n - 1]].mean()])
    assert not agree(found, other), "the mask of another image is seen"


@BOTH
@pytest.mark.parametrize("form", ["image", "vectors of an image", "tokens", "series"])
def test_many_targets_at_once_are_those_one_by_one(form: str, technique: str) -> None:
    case = CASES[form]
    model, x = case.model(), case.inputs(2)
    found = raw(technique, case, model, x, "all")
    assert agree(found, exact(technique, case, model, x, classes([[*range(CLASSES)]] * 2)))


def transposed(self: Grid, tensor: Tensor) -> Tensor:
    places = self.places[::-1]
    return GRID_MAP(Grid(self.form, self.leading, places), tensor).transpose(-1, -2)


GRID_MAP = Grid.map

MUTANTS: dict[str, tuple[str, str, type, str, Any]] = {
    "LayerCAM without its ReLU": (
        "layer_cam", "image", HooksLayerCAM, "combine", lambda self, a, g: (g * a).sum(2)),
    "LayerCAM, ReLU around the product": (
        "layer_cam", "image", HooksLayerCAM, "combine", lambda self, a, g: (g * a).relu().sum(2)),
    "LayerCAM of the neighbour's gradient": (
        "layer_cam", "image", HooksLayerCAM, "combine", lambda self, a, g: (g.roll(1, 1).relu() * a).sum(2)),
    "LayerCAM of another image's activation": (
        "layer_cam", "image", HooksLayerCAM, "combine", lambda self, a, g: (g.relu() * a.roll(1, 0)).sum(2)),
    "Grad-CAM of the neighbour's gradient": (
        "grad_cam", "image", HooksGradCAM, "weights", lambda self, a, w: w.roll(1, 1)),
    "places transposed": ("grad_cam", "tokens", Grid, "map", transposed),
    "the same of sequence-first tokens": ("layer_cam", "tokens, sequence first", Grid, "map", transposed),
    "class token kept, last patch lost": (
        "layer_cam", "tokens", Grid, "map", lambda self, t: GRID_MAP(Grid(self.form, 0, self.places), t[..., :-1, :])),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    technique, form, owner, attribute, instead = MUTANTS[name]
    case = CASES[form]
    model, x, targets = case.model(), case.inputs(3), [[*range(CLASSES)]] * 3
    wanted = exact(technique, case, model, x, classes(targets))
    assert agree(raw(technique, case, model, x, targets), wanted)
    monkeypatch.setattr(owner, attribute, instead)
    assert not agree(raw(technique, case, model, x, targets), wanted)


def test_captums_mutant_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = IMAGE.model(), IMAGE.inputs(2)
    wanted = exact("layer_cam", IMAGE, model, x, classes([[1], [1]]))
    plain = CaptumLayerCAM.column
    assert agree(raw("layer_cam", IMAGE, model, x, 1, "captum"), wanted)
    monkeypatch.setattr(CaptumLayerCAM, "column", lambda *args: plain(*args).roll(1, 0))
    assert not agree(raw("layer_cam", IMAGE, model, x, 1, "captum"), wanted)


def test_the_oracles_relu_matters() -> None:
    model, x = IMAGE.model(), IMAGE.inputs(1)
    activation, found = loops.gradients(lambda: model(x), model.get_submodule("conv"), lambda o: [o[0, 1]])  # type: ignore[index]
    maps = [
        loops.cam(formula, IMAGE.values, IMAGE.places, activation, found)[None]
        for formula in (loops.layer_cam, loops.layer_cam_without_relu)
    ]
    assert not agree(maps[0], maps[1])
