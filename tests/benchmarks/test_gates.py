"""Counts that no noise can move, and that must not grow: forwards, modules, gradients, copies to the host."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from attribution import Activations, Execution, FilterVisualization, GradCAM, Occlusion, Technique, explain, registry
from attribution.testing import small_cnn, small_residual
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


@pytest.mark.parametrize("backend", ["hooks", "captum"])
def test_occlusion_runs_one_forward_per_window_and_one_for_the_clean_image(backend: str) -> None:
    model, technique = small_cnn(), Occlusion(window=5, stride=3)
    windows = len(technique.lattice(17, 23).windows)
    attributor = registry.get(technique, backend)(model, technique, Execution(batch_size=8))
    _, counts = count(model, lambda: attributor.attribute(_images()), warm=lambda: attributor.attribute(_images()))
    assert counts.images == windows + 1
    assert counts.forwards == 1 + -(-windows // 8)


def test_dense_occlusion_executes_exactly_the_macs_of_its_forwards() -> None:
    model, technique = small_residual(), Occlusion(window=5, stride=3)
    with torch.no_grad():
        one = _macs(lambda: model(_images()), model)
    windows = len(technique.lattice(17, 23).windows)
    assert _macs(lambda: explain(model, _images(), technique, target=0), model) == (windows + 1) * one


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


def test_copies_to_the_host_do_not_grow_with_the_windows() -> None:
    few, many = Occlusion(window=17, stride=17), Occlusion(window=4, stride=2)
    assert len(many.lattice(17, 23).windows) > 10 * len(few.lattice(17, 23).windows)
    assert _host_copies(many, "hooks") == _host_copies(few, "hooks")


def test_copies_to_the_host_do_not_grow_with_the_steps_of_an_ascent() -> None:
    few, many = (FilterVisualization(layer="body", channels=(0, 1), size=17, steps=steps) for steps in (2, 12))
    assert _host_copies(many, "hooks") == _host_copies(few, "hooks")


def test_copies_to_the_host_do_not_grow_with_the_targets() -> None:
    model = small_cnn()
    counted = []
    for target in ([[0]], [[0, 1, 2, 3, 4]]):
        with _HostCopies() as copies:
            explain(model, _images(), GradCAM.example(), target=target)
        counted.append(copies.count)
    assert counted[0] == counted[1]


def test_the_host_copy_counter_sees_one() -> None:
    with _HostCopies() as copies:
        torch.ones(3).sum().item()
    assert copies.count == 1


def test_a_backward_is_caught_as_a_touched_gradient() -> None:
    model = small_cnn()
    call = lambda: model(_images()).sum().backward()  # noqa: E731  # a thunk
    assert count(model, call, warm=lambda: None)[1].parameter_gradients > 0
