"""Taking a model apart is nobody else's business: other threads, other tracers, memory and modes."""

import gc
import weakref
from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
from torch import Tensor, fx, nn

from attribution import GradCAM, Occlusion, explain
from attribution.lowered import tracing
from attribution.testing import guard, small_cnn, small_depthwise, small_residual
from attribution.testing.threads import together
from tests.backends.occlusion.truth import ask, image

pytestmark = pytest.mark.usefixtures("eager")

ROUNDS = 12


def test_other_threads_see_nothing() -> None:
    x, call, lookup = image(dtype=torch.float32), nn.Module.__call__, nn.Module.__getattr__
    models: list[nn.Module] = [small_cnn(), small_residual(), small_depthwise()]
    windows = Occlusion(window=9, stride=9)
    truths = [ask(model, x, windows).maps["input"] for model in models]
    cam = explain(models[0], x, GradCAM(layers=("body",)), target=1).maps["body"]
    with torch.no_grad():
        plain, code = models[1](x), str(fx.symbolic_trace(models[2]).graph)

    def equal(found: Tensor, truth: Tensor) -> None:
        if not torch.allclose(found, truth, rtol=1e-4, atol=1e-5):
            raise ValueError(f"off by {(found - truth).abs().max().item()}")

    def occlusion(index: int) -> Callable[[], None]:
        def work() -> None:
            tracing.trace(models[index])
            equal(ask(models[index], x, windows).maps["input"], truths[index])

        return work

    def forward() -> None:
        with torch.no_grad():
            equal(models[1](x), plain)

    def grad_cam() -> None:
        equal(explain(models[0], x, GradCAM(layers=("body",)), target=1).maps["body"], cam)

    assert together(occlusion(0), occlusion(1), occlusion(2), forward, grad_cam, rounds=ROUNDS) == []
    assert (nn.Module.__call__, nn.Module.__getattr__) == (call, lookup)
    assert str(fx.symbolic_trace(models[2]).graph) == code


def test_a_foreign_tracer_at_the_same_time() -> None:
    """fx's own tracer breaks forwards of all threads while it runs; what it gives itself, and leaves, is as ever."""
    call, lookup = nn.Module.__call__, nn.Module.__getattr__
    mine, theirs = small_residual(), small_depthwise()
    code = str(fx.symbolic_trace(theirs).graph)

    def trace() -> None:
        with suppress(tracing.Untraceable):
            tracing.trace(mine)

    def foreign() -> None:
        if str(fx.symbolic_trace(theirs).graph) != code:
            raise ValueError("another graph")

    assert together(trace, foreign, trace, rounds=ROUNDS) == []
    assert (nn.Module.__call__, nn.Module.__getattr__) == (call, lookup)


@pytest.mark.parametrize("incremental", [True, False])
def test_footprint(incremental: bool) -> None:
    model, x = small_residual(dtype=torch.float64), image(2)
    if not incremental:
        model.register_forward_hook(lambda module, args, out: None)
    with guard(model, x):
        result = ask(model, x)
    assert (result.provenance["engine"] == "incremental") == incremental


def test_nothing_is_kept() -> None:
    model, x = small_residual(dtype=torch.float64), image()
    ask(model, x)
    tensors = count()
    for _ in range(3):
        ask(model, x)
    assert count() <= tensors
    head = weakref.ref(model.head)
    del model
    gc.collect()
    assert head() is None


def count() -> int:
    gc.collect()
    return sum(issubclass(type(item), Tensor) for item in gc.get_objects())
