"""Deterministic kernels, autocast, TF32 and the memory budget on a device that is not the CPU."""

from typing import Any

import pytest
import torch
from torch import nn

from attribution import (
    Activations,
    Attribution,
    Execution,
    FilterVisualization,
    GradCAM,
    ModelError,
    Technique,
    compare,
    explain,
)
from attribution.running import precision
from attribution.running.execution import HOST_BUDGET
from tests.cases import COMPARED, TECHNIQUES, by_backends, given
from tests.conftest import BACKENDS, build, noise
from tests.simulated_device.device import tf32

pytestmark = pytest.mark.usefixtures("device")  # no TF32
X = noise(3, 3, 17, 23)
QUESTIONS: dict[str, Technique] = {
    **TECHNIQUES,
    "activations of every layer": Activations(),
    "grad_cam of two layers": GradCAM(layers=("stem", "body")),
    "filters of a neuron": FilterVisualization(layer="body", channels=(1,), neuron="center", steps=3, size=19, tv=0.1),
}


def ask(name: str, backend: str, device: str, **execution: Any) -> Attribution:
    technique = QUESTIONS[name]
    inputs, target = given(technique, X.to(device), "all")
    asked: dict[str, Any] = {"target": target, "backend": backend, "execution": Execution(**execution)}
    return explain(build("residual").to(device), inputs, technique, **asked)


@by_backends("name", QUESTIONS)
def test_deterministic_kernels_give_the_hosts_answer(name: str, backend: str) -> None:
    found, wanted = (ask(name, backend, device, deterministic=True) for device in ("sim:1", "cpu"))
    for key, map_ in wanted.raw.items():
        size = map_.abs().max() + wanted.extras.get("largest_score", torch.zeros(1)).max()
        within = 1e-2 if key == "body" and isinstance(found.technique, FilterVisualization) else 1e-5
        assert (found.raw[key].cpu() - map_).abs().max() <= within * size, key


@BACKENDS
def test_an_operation_without_a_deterministic_kernel_is_named(backend: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)).eval().to("sim")
    said = r"no deterministic _adaptive_avg_pool2d_backward, which this model needs.* nn\.AvgPool2d of a fixed size"
    with pytest.raises(ModelError, match=said):
        explain(model, X.to("sim"), GradCAM(layers=("0",)), backend=backend, execution=Execution(deterministic=True))


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_filters_climb_under_autocast(dtype: torch.dtype, backend: str) -> None:
    found, wanted = (ask("filter_visualization", backend, device, autocast=dtype) for device in ("sim", "cpu"))
    assert found.extras["status"].tolist() == [0, 0]
    first = wanted.raw["first_step"]
    assert (found.raw["first_step"].cpu() - first).abs().max() <= 0.1 * first.abs().max()


def test_the_hosts_autocast_of_the_caller_changes_no_bit() -> None:
    model, technique = build("residual").to("sim"), QUESTIONS["filter_visualization"]
    plain = explain(model, None, technique)
    with torch.autocast("cpu", torch.bfloat16):
        found = explain(model, None, technique)
    assert torch.equal(found.map.cpu(), plain.map.cpu())


def test_a_device_that_does_not_tell_its_memory_has_the_hosts_budget() -> None:
    assert Execution().on(torch.device("sim", 1)).budget == HOST_BUDGET


@pytest.mark.parametrize("name", [name for name in QUESTIONS if name in COMPARED])
def test_backends_agree_in_tf32_and_the_fast_ways_are_taken(name: str) -> None:
    technique = QUESTIONS[name]
    flag = precision.FLAGS["convolution"]()
    before, flag.fp32_precision = flag.fp32_precision, "tf32"
    try:
        with tf32(product=False):
            model = build("residual").to("sim")
            inputs, target = given(technique, X.to("sim"), "all")
            found = compare(model, inputs, technique, target=target, execution=Execution(incremental="always"))
    finally:
        flag.fp32_precision = before
    assert found.holds, found.table()
    hooks = found.attributions["hooks"]
    assert str(hooks.provenance["float32 products"]).startswith("convolution tf32, matmul ieee")
    assert hooks.provenance.get("engine", "incremental") == "incremental"
    if technique.needs_inputs:
        exact = ask(name, "hooks", "cpu")
        for key, map_ in exact.raw.items():
            off = (hooks.raw[key].cpu() - map_).abs().max() / map_.abs().max()
            assert 1e-6 < off < 0.1, "TF32 does nothing here"
