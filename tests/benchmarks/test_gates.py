"""Counts that no noise can move, and that must not grow: forwards, modules, gradients, copies to the host."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from attribution import Activations, Execution, FilterVisualization, GradCAM, Occlusion, Technique, explain, registry
from attribution.lowered.tracing import trace
from attribution.metrics.cost import Macs
from attribution.testing import calibrated, small_cnn, small_depthwise, small_residual
from attribution_hooks.incremental.graph import Program, build
from attribution_hooks.incremental.plan import Plan
from benchmarks.counters import count

TO_HOST = ("_local_scalar_dense", "nonzero", "is_nonzero")


class _HostCopies(TorchDispatchMode):
    """Counts operations that wait for a device and bring a value to the host."""

    count: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += any(name in str(func) for name in TO_HOST)
        return func(*args, **(kwargs or {}))


def _images(batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, 17, 23, generator=torch.Generator().manual_seed(0))


def _macs(call: Callable[[], object], model: nn.Module) -> int:
    _, counts = count(model, call, warm=call)
    return counts.macs


def _host_copies(technique: Technique, backend: str) -> int:
    model, inputs = small_cnn(), _images() if technique.needs_inputs else None
    with _HostCopies() as copies:
        explain(model, inputs, technique, backend=backend)
    return int(copies.count)


def _strided() -> nn.Module:
    """Grouped, depthwise, and 1 × 1 with a stride; wide enough that tiles pay."""

    def net() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 12, (3, 2), groups=4, dilation=(1, 2)),
            nn.Conv2d(12, 16, 1, stride=2),
            nn.Flatten(2),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(16, 5),
        )

    return calibrated(net, 0, torch.float32)


def _folding(technique: Occlusion, height: int, width: int) -> int:
    """MACs of one map from its windows: rows of the lattice to pixels, then columns."""
    lattice = technique.lattice(height, width)
    return height * len(lattice.rows) * len(lattice.columns) + height * len(lattice.columns) * width


def _claimed_and_counted(model: nn.Module, batch: int, batch_size: int) -> tuple[int, int, int]:
    """MACs of the windows, as provenance tells and as torch's kernels were called, and of one clean image."""
    inputs = torch.randn(batch, 3, 41, 47, generator=torch.Generator().manual_seed(0))
    technique, execution = Occlusion(window=7, stride=5), Execution(batch_size=batch_size)
    call = lambda: explain(model, inputs, technique, target=0, execution=execution)  # noqa: E731  # a thunk
    result, counts = count(model, call, warm=call)
    assert result.provenance["engine"] == "incremental"
    with torch.no_grad():
        one = _macs(lambda: model(inputs[:1]), model)
    assert counts.images - 2 * batch in (2, 3)  # clean and covered: corner, middle, the strongest, a short batch
    passes = counts.images + 1 + (batch if batch > 1 else 0)  # the model itself; recognising layers; clean maps
    found = counts.macs - passes * one - batch * _folding(technique, 41, 47)
    return int(result.provenance["macs"]), found, one


@pytest.mark.parametrize("backend", ["hooks", "captum"])
def test_occlusion_runs_one_forward_per_window_and_one_for_the_clean_image(backend: str) -> None:
    model, technique = small_cnn(), Occlusion(window=5, stride=3)
    windows = len(technique.lattice(17, 23).windows)
    attributor = registry.get(technique, backend)(
        model, technique, Execution(batch_size=8, incremental=False, lowered=False)
    )
    _, counts = count(model, lambda: attributor.attribute(_images()), warm=lambda: attributor.attribute(_images()))
    assert counts.images == windows + 1
    assert counts.forwards == 1 + -(-windows // 8)


@pytest.mark.parametrize("lowered", [False, True])
def test_dense_occlusion_executes_exactly_the_macs_of_its_forwards(lowered: bool) -> None:
    """By a lowered network the same, and four covered images by the model itself."""
    model, technique = small_residual(), Occlusion(window=5, stride=2)
    execution = Execution(incremental=False, lowered=lowered)
    with torch.no_grad():
        one = _macs(lambda: model(_images()), model)
    windows = len(technique.lattice(17, 23).windows)
    call = lambda: explain(model, _images(), technique, target=0, execution=execution)  # noqa: E731  # a thunk
    assert str(call().provenance["forwards"]).startswith("lowered" if lowered else "the model's own")
    assert _macs(call, model) == (windows + 1 + 4 * lowered) * one + _folding(technique, 17, 23)


def test_counting_does_not_make_the_engine_dense() -> None:
    model, technique = small_cnn(), Occlusion(window=5, stride=3)
    call = lambda: explain(model, _images(), technique, target=0)  # noqa: E731  # a thunk
    result, counts = count(model, call, warm=call)
    assert result.provenance["engine"] == "incremental"
    assert (counts.forwards, counts.images) == (3, 5)  # the clean image, two covered ones at once, two in the end
    assert 0 < counts.macs < int(result.provenance["macs_dense"])


@pytest.mark.parametrize(("batch", "batch_size"), [(1, 1), (1, 7), (1, 1000), (2, 5)])
@pytest.mark.parametrize("build_model", [small_cnn, small_residual, small_depthwise, _strided])
def test_the_macs_that_an_incremental_run_claims_are_those_it_executes(
    build_model: Callable[[], nn.Module], batch: int, batch_size: int
) -> None:
    claimed, counted, _ = _claimed_and_counted(build_model(), batch, batch_size)
    assert claimed == counted


def test_a_wrong_claim_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each convolution were one multiply-accumulate per pixel cheaper than it is."""
    ops = Program.ops.fget  # type: ignore[attr-defined]
    lacking = lambda program: [replace(op, macs=max(op.macs - 1, 0)) for op in ops(program)]  # noqa: E731
    monkeypatch.setattr(Program, "ops", property(lacking))
    claimed, counted, _ = _claimed_and_counted(small_cnn(), 1, 1000)
    assert 0 < counted - claimed < counted / 50


LIMIT = 1.20
"""Of executed to least possible MACs, at window 40 and stride 20 on 224 px."""


def _plan(name: str) -> Plan:
    """Shapes are all that it takes: no weights, no images."""
    with torch.device("meta"), torch.no_grad():
        model = models.get_model(name).eval()
        program, _, _ = build(model, trace(model), torch.empty(1, 3, 224, 224))
    return Plan.of(program.ops, Occlusion(window=40, stride=20).lattice(224, 224), program.rest_macs)


@pytest.mark.parametrize(
    ("name", "dense"),  # multiply-accumulates of a forward, as published
    [("vgg16", 15.47e9), ("resnet18", 1.81e9), ("resnet50", 4.09e9), ("squeezenet1_1", 0.349e9)],
)
def test_executed_macs_stay_near_the_least_possible(name: str, dense: float) -> None:
    plan = _plan(name)
    assert plan.dense / 121 == pytest.approx(dense, rel=0.005)
    assert 1.0 < plan.executed / plan.floor <= LIMIT
    assert plan.executed < 0.55 * plan.dense


def test_one_tile_size_for_all_windows_would_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attribution_hooks.incremental.plan.SLACK", float("inf"))
    plan = _plan("vgg16")
    assert len(plan.groups) == 1
    assert plan.executed / plan.floor > LIMIT


@pytest.mark.parametrize("inference", [False, True])
def test_macs_are_counted_as_torch_counts_them(inference: bool) -> None:
    model = small_depthwise()
    with torch.inference_mode(inference):
        with FlopCounterMode(display=False) as flops:
            model(_images(2))
        with Macs() as macs:
            model(_images(2))
    assert 2 * macs.total == flops.get_total_flops() > 0


def test_macs_of_a_backward_are_counted() -> None:
    model = small_residual()
    weight = next(model.parameters())
    with FlopCounterMode(display=False) as flops:
        torch.autograd.grad(model(_images()).sum(), weight)
    with Macs() as macs:
        torch.autograd.grad(model(_images()).sum(), weight)
    assert 2 * macs.total == flops.get_total_flops() > 0


def test_grad_cam_of_many_layers_and_targets_is_one_forward() -> None:
    model, technique = small_cnn(), GradCAM(layers=("stem", "body"))
    call = lambda: explain(model, _images(), technique, target=[[0, 1, 2]])  # noqa: E731  # a thunk
    _, counts = count(model, call, warm=call)
    assert (counts.forwards, counts.images) == (1, 1)


@pytest.mark.parametrize("backend", ["hooks", "captum"])
@pytest.mark.parametrize("technique", [Activations.example(), GradCAM.example(), FilterVisualization.example()])
def test_no_parameter_gradient_is_touched(technique: Technique, backend: str) -> None:
    model, inputs = small_residual(), _images() if technique.needs_inputs else None
    call = lambda: explain(model, inputs, technique, backend=backend)  # noqa: E731  # a thunk
    assert count(model, call, warm=call)[1].parameter_gradients == 0


@pytest.mark.parametrize("technique", [Activations(layers=("stem",)), FilterVisualization(layer="stem", channels=(0,))])
def test_no_module_runs_beyond_the_last_requested_layer(technique: Technique) -> None:
    model, inputs = small_cnn(), _images() if technique.needs_inputs else None
    beyond: list[str] = []
    call = lambda: explain(model, inputs, technique)  # noqa: E731  # a thunk
    call()
    for name in ("stem_relu", "pool", "body", "head"):
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: beyond.append(name))
    call()  # hooks changed, so the model is surveyed once more
    beyond.clear()
    call()
    assert beyond == []


@pytest.mark.parametrize("incremental", [False, True])
def test_copies_to_the_host_do_not_grow_with_the_windows(incremental: bool) -> None:
    few, many = Occlusion(window=6, stride=6), Occlusion(window=4, stride=1)
    assert len(many.lattice(17, 23).windows) > 10 * len(few.lattice(17, 23).windows)
    counted = []
    for technique in (few, many):
        with _HostCopies() as copies:
            execution = Execution(incremental=incremental, lowered=False)  # networks are lowered where nothing waits
            result = explain(small_cnn(), _images(), technique, execution=execution)
        assert result.provenance["engine"] == ("incremental" if incremental else "dense")
        counted.append(copies.count)
    assert counted[0] == counted[1]


def test_copies_to_the_host_do_not_grow_with_the_steps_of_an_ascent() -> None:
    few, many = (FilterVisualization(layer="body", channels=(0, 1), size=17, steps=steps) for steps in (2, 12))
    assert _host_copies(many, "hooks") == _host_copies(few, "hooks")


@pytest.mark.parametrize("targets", [([[0]], [[0, 1, 2]]), ([[1, 3, 0, 2]], [[1, 3, 0, 2, 4]])], ids=["few", "many"])
def test_copies_to_the_host_do_not_grow_with_the_targets(targets: tuple[list[list[int]], ...]) -> None:
    model = small_cnn()
    counted = []
    for target in targets:
        with _HostCopies() as copies:
            explain(model, _images(), GradCAM.example(), target=target)
        counted.append(copies.count)
    # of as many targets as there are classes the order is looked at, which lies on the host
    assert counted[1] - counted[0] == (targets[1] == [[1, 3, 0, 2, 4]])


def test_the_host_copy_counter_sees_one() -> None:
    with _HostCopies() as copies:
        torch.ones(3).sum().item()
    assert copies.count == 1


def test_a_backward_is_caught_as_a_touched_gradient() -> None:
    model = small_cnn()
    call = lambda: model(_images()).sum().backward()  # noqa: E731  # a thunk
    assert count(model, call, warm=lambda: None)[1].parameter_gradients > 0
