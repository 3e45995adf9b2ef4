"""Half precision: within the stated error of float64 on the same weights, and a map five percent off is outside it."""

import copy
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, Attribution, ClassScore, FilterVisualization, GradCAM, Occlusion, Technique
from attribution.agreement import relative_tolerance
from attribution.running.execution import Execution
from attribution.testing import guard, small_cnn, small_residual
from tests import cases
from tests.cases import SOME_PAIRS
from tests.draw import pairwise
from tests.models.kinds import INPUTS, PAIRS, ask

# Occlusion covers most of the image with something glaring: changes that are small against the scores are rounding.
# Gradients at the input have no bound: a ReLU or a pool that half precision turns over changes a pixel by a whole path.
BOUNDED: dict[str, Technique] = {
    **{name: each for name, each in cases.OF_LAYERS.items() if name not in cases.OF_RECTIFIERS},  # input gradients
    "activations": Activations(layers=("stem", "body", "head")),
    "grad_cam": GradCAM(layers=("stem", "body"), relu=False),
    "occlusion": Occlusion(window=(13, 17), stride=4, baseline=-4.0),
    "filter_visualization": FilterVisualization.notebook(
        layer="body", channels=(0, 2), steps=3, size=(17, 23), noise=1.0
    ),
}
TECHNIQUES = cases.TECHNIQUES | BOUNDED
EVERY = pytest.mark.parametrize("pair", SOME_PAIRS)
HALVES = [torch.float16, torch.bfloat16]
Build = Callable[[], nn.Module]


def coarse(pair: tuple[str, str], build: Build, dtype: torch.dtype, form: str) -> Attribution:
    """In half precision, by a model of half weights or by autocast."""
    technique = TECHNIQUES[pair[0]]
    if form == "autocast":
        model = build()
        with guard(model, INPUTS):
            return ask(pair, model, technique=technique, execution=Execution(autocast=dtype))
    model, inputs = build().to(dtype), INPUTS.to(dtype)
    with guard(model, inputs):
        return ask(pair, model, inputs, technique=technique)


@cache
def exact(pair: tuple[str, str], build: Build, dtype: torch.dtype | None) -> Attribution:
    """In float64; weights and inputs are those of the model of half weights, where ``dtype`` says so."""
    model, inputs = (build(), INPUTS) if dtype is None else (build().to(dtype), INPUTS.to(dtype))
    return ask(pair, model.double(), inputs.double(), technique=TECHNIQUES[pair[0]])


def reached(images: Tensor, build: Build, dtype: torch.dtype | None) -> Tensor:
    """The filters' objectives of finished images, in float64."""
    model = (build() if dtype is None else build().to(dtype)).double()
    for name in ("stem", "stem_relu", "pool", "body"):
        images = model.get_submodule(name)(images.double())
    return torch.stack([images[0, 0].mean(), images[1, 2].mean()]).detach()


def outside(found: Attribution, wanted: Attribution, build: Build, dtype: torch.dtype, form: str) -> list[str]:
    """Where a result is further from the exact one than its kind is allowed to be."""
    weights = None if form == "autocast" else dtype
    if isinstance(found.technique, FilterVisualization):
        ours, theirs = (reached(side.map, build, weights) for side in (found, wanted))
        told = found.extras["objective"][-1].double()
        off = [(ours - theirs).abs() / theirs.abs(), (told - ours).abs() / theirs.abs()]
        return [f"objective off by {part.tolist()}" for part in off if part.max() > 0.02]
    wrong = []
    for key, map_ in wanted.raw.items():
        largest = map_.abs().max().item()
        limit = relative_tolerance(dtype) / 2 * largest
        if isinstance(found.technique, Occlusion):
            limit = 1.5 * torch.finfo(dtype).eps * (largest + wanted.extras["largest_score"].max().item())
        error = (found.raw[key].double() - map_).abs().max().item()
        if error > limit:
            wrong.append(f"{key} off by {error:.3g} of {limit:.3g}")
    return wrong


def five_percent(found: Attribution) -> Attribution:
    wrong = copy.copy(found)
    object.__setattr__(wrong, "raw", {key: 1.05 * map_ for key, map_ in found.raw.items()})
    object.__setattr__(wrong, "maps", {key: 1.05 * map_ for key, map_ in found.maps.items()})
    return wrong


@pairwise(
    pair={".".join(pair): pair for pair in PAIRS if pair[0] in BOUNDED},
    dtype=HALVES,
    form=["model", "autocast"],
    build={build.__name__: build for build in (small_cnn, small_residual)},
)
def test_within_the_stated_error(pair: tuple[str, str], dtype: torch.dtype, form: str, build: Build) -> None:
    found = coarse(pair, build, dtype, form)
    wanted = exact(pair, build, None if form == "autocast" else dtype)
    assert found.computes_in == dtype
    assert all(map_.dtype == torch.float32 and map_.isfinite().all() for map_ in found.maps.values())
    assert not outside(found, wanted, build, dtype, form)
    assert outside(five_percent(found), wanted, build, dtype, form), "a map five percent off passes for rounding"


@EVERY
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_the_callers_autocast_changes_no_bit(pair: tuple[str, str], dtype: torch.dtype) -> None:
    model, technique = small_residual(), TECHNIQUES[pair[0]]
    plain = ask(pair, model, technique=technique)
    with torch.autocast("cpu", dtype), guard(model, INPUTS):
        found = ask(pair, model, technique=technique)
    assert all(torch.equal(found.raw[key], map_) for key, map_ in plain.raw.items())
    asked = ask(pair, model, technique=technique, execution=Execution(autocast=dtype))
    assert any(not torch.equal(asked.raw[key], map_) for key, map_ in plain.raw.items()), "autocast does nothing here"


@pytest.mark.parametrize("backend", ["hooks", "captum"])
def test_probabilities_are_not_rounded_to_half_precision(backend: str) -> None:
    """Changes of probabilities are small against 1: rounded to bfloat16, few different ones would be left."""
    technique, score = Occlusion(window=(5, 6), stride=3), ClassScore(1, of="probability")
    model, inputs = small_cnn().bfloat16(), INPUTS.bfloat16()
    found = ask(("occlusion", backend), model, inputs, technique=technique, score=score).raw["input"]
    wanted = ask(("occlusion", backend), model.double(), inputs.double(), technique=technique, score=score).raw["input"]
    error = (found.double() - wanted).abs().max() / wanted.abs().max()
    values = torch.stack([found.unique().numel() * torch.ones(()), wanted.unique().numel() * torch.ones(())])
    assert error < 0.1, error
    assert values[0] > 0.9 * values[1], values
