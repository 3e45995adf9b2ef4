"""Both backends against slow loops in float64, and in float32 no further off than rounding."""

from functools import cache
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from attribution import Activations, Attribution, ClassScore, FilterVisualization, GradCAM, Occlusion, explain, registry
from attribution.techniques.filter_visualization import FIRST_STEP
from tests import oracles
from tests.conftest import MODELS, build, noise

LAYERS = ("stem", "stem_relu", "pool", "body", "body_relu")
WINDOWS = [
    Occlusion(window=(7, 9), stride=(5, 7), baseline=(0.3, -0.2, 0.1)),
    Occlusion(window=6, stride=5, border="drop", baseline=0.5),
]
OF: list[Literal["probability", "logit"]] = ["probability", "logit"]
FILTERS = FilterVisualization.notebook(layer="body", channels=(0, 3), steps=3, size=(11, 13), noise=0.5)
SIZE = (13, 17)
TARGETS = [[0, 3], [4, 1]]

BACKENDS = {name: registry.backends(name) for name in ("activations", "grad_cam", "occlusion", "filter_visualization")}
BOTH = ["captum", "hooks"]
DTYPES = {torch.float64: np.float64, torch.float32: np.float32}


def inputs(dtype: torch.dtype) -> Tensor:
    return noise(2, 3, *SIZE, dtype=dtype)


@cache
def net(model: str, dtype: torch.dtype, runs_in: type) -> oracles.Net:
    return oracles.Net(build(model, dtype), runs_in)


@cache
def activations(model: str, dtype: torch.dtype, runs_in: type, layer: str) -> Tensor:
    return oracles.stacked([net(model, dtype, runs_in).layer(x, layer) for x in oracles.images(inputs(dtype), runs_in)])


@cache
def cams(model: str, dtype: torch.dtype, runs_in: type, layer: str) -> Tensor:
    loops = net(model, dtype, runs_in)
    return torch.stack(
        [
            oracles.stacked([oracles.grad_cam(loops, image, layer, t) for t in row])
            for image, row in zip(oracles.images(inputs(dtype), runs_in), TARGETS, strict=True)
        ]
    )


@cache
def occlusions(model: str, dtype: torch.dtype, runs_in: type, index: int) -> Tensor:
    technique, loops = WINDOWS[index], net(model, dtype, runs_in)
    baseline = technique.baseline if isinstance(technique.baseline, tuple) else (technique.baseline,) * 3
    score = loops.logits if OF[index] == "logit" else lambda x: oracles.softmax(loops.logits(x))
    maps = [
        oracles.occlusion(
            score,
            image,
            window=technique.size,
            stride=technique.step,
            baseline=baseline,
            border=technique.border,
        )[row]
        for image, row in zip(oracles.images(inputs(dtype), runs_in), TARGETS, strict=True)
    ]
    return oracles.stacked(maps)


@cache
def ascents(model: str, dtype: torch.dtype, runs_in: type) -> tuple[list[Tensor], Tensor]:
    """The images after each step, and the objective."""
    start = FILTERS.start(build(model, dtype))
    done = [
        oracles.ascend(net(model, dtype, runs_in), image, FILTERS.layer, channel, FILTERS.steps, FILTERS.step_size)
        for image, channel in zip(oracles.images(start, runs_in), FILTERS.channels, strict=True)
    ]
    steps = [oracles.stacked([path[step] for path, _ in done]) for step in range(FILTERS.steps + 1)]
    return steps, torch.tensor([history for _, history in done], dtype=torch.float64).T


def off(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return (a.double() - b.double()).abs().max().item()


def check(found: Tensor, exact: Tensor, plain: Tensor | None, *, size: float = 0.0) -> None:
    """Within 1e-10 of the largest value; or, given a plain float32 run, at most twice as far off as that is."""
    scale = max(exact.abs().max().item(), size)
    assert exact.abs().max() > 1e-4, "a map without signal proves nothing"
    if plain is None:
        assert off(found, exact) <= 1e-10 * scale
    else:
        assert off(found, exact) <= 2 * max(off(plain, exact), torch.finfo(torch.float32).eps * scale)


def test_the_loops_are_the_network(model_name: str) -> None:
    logits = build(model_name, torch.float64)(inputs(torch.float64))
    found = [net(model_name, torch.float64, np.float64).logits(x) for x in oracles.images(inputs(torch.float64))]
    assert off(oracles.stacked(found), logits) <= 1e-12 * logits.abs().max()


def test_every_technique_has_both_backends() -> None:
    assert all(names == BOTH for names in BACKENDS.values())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BOTH)
def test_activations(model_name: str, backend: str, dtype: torch.dtype) -> None:
    result = explain(build(model_name, dtype), inputs(dtype), Activations(layers=LAYERS), backend=backend)
    for layer in LAYERS:
        assert result.maps[layer].dtype == dtype
        plain = activations(model_name, dtype, np.float32, layer) if dtype == torch.float32 else None
        check(result.maps[layer], activations(model_name, dtype, np.float64, layer), plain)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BOTH)
def test_grad_cam(model_name: str, backend: str, dtype: torch.dtype) -> None:
    result = explain(build(model_name, dtype), inputs(dtype), GradCAM(layers=LAYERS), backend=backend, target=TARGETS)
    for layer in LAYERS:
        plain = cams(model_name, dtype, np.float32, layer) if dtype == torch.float32 else None
        check(result.raw[layer], cams(model_name, dtype, np.float64, layer), plain)


@pytest.mark.parametrize("relu", [True, False])
def test_grad_cam_is_rectified_before_it_is_upsampled(model_name: str, relu: bool) -> None:
    dtype = torch.float64
    result = explain(build(model_name, dtype), inputs(dtype), GradCAM(layers=("body",), relu=relu), target=TARGETS)
    raw = cams(model_name, dtype, np.float64, "body").numpy()
    expected = [[oracles.bilinear(np.maximum(cam, 0) if relu else cam, *SIZE) for cam in row] for row in raw]
    check(result.map, torch.tensor(np.array(expected)), None)


@pytest.mark.parametrize("index", range(len(WINDOWS)), ids=["probability-cover", "logit-drop"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BOTH)
def test_occlusion(model_name: str, backend: str, dtype: torch.dtype, index: int) -> None:
    result = explain(
        build(model_name, dtype),
        inputs(dtype),
        WINDOWS[index],
        backend=backend,
        target=ClassScore(TARGETS, of=OF[index]),
    )
    exact = occlusions(model_name, dtype, np.float64, index)
    coarse = dtype == torch.float32 or result.computes_in == torch.float32
    plain = occlusions(model_name, dtype, np.float32, index) if coarse else None
    size = 2 * result.extras["largest_score"].max().item()  # of two scores, whose difference it is
    check(result.map, exact, plain, size=size)


def test_only_some_of_captum_computes_coarser_than_its_input() -> None:
    found = {pair: registry.get(*pair).computes_in for pair in registry.available()}
    coarse = {pair for pair, dtype in found.items() if dtype is not None}
    names = ("integrated_gradients", "kernel_shap", "lime", "occlusion", "shapley_sampling", "token_occlusion")
    assert coarse == {(name, "captum") for name in names}
    dtype = torch.float64
    run = {
        backend: explain(
            build("cnn", dtype), inputs(dtype), WINDOWS[1], backend=backend, target=ClassScore(TARGETS, of=OF[1])
        )
        for backend in BOTH
    }
    assert {backend: result.raw["input"].dtype for backend, result in run.items()} == {
        "captum": torch.float32,
        "hooks": torch.float64,
    }
    assert (run["captum"].computes_in, run["hooks"].computes_in) == (torch.float32, torch.float64)
    assert {result.map.dtype for result in run.values()} == {torch.float64}
    exact = occlusions("cnn", dtype, np.float64, 1)
    assert off(run["captum"].map, exact) > 1e-10 * exact.abs().max(), "the declaration is out of date"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BOTH)
def test_filter_visualization(model_name: str, backend: str, dtype: torch.dtype) -> None:
    result: Attribution = explain(build(model_name, dtype), None, FILTERS, backend=backend)
    exact, objective = ascents(model_name, dtype, np.float64)
    plain = ascents(model_name, dtype, np.float32) if dtype == torch.float32 else None
    for key, step in ((FIRST_STEP, 1), (FILTERS.layer, FILTERS.steps)):
        check(result.raw[key], exact[step], plain and plain[0][step])
    check(result.extras["objective"], objective, plain and plain[1])


def test_all_models_are_covered() -> None:
    assert len(MODELS) >= 3
