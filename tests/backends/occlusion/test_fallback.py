"""Models that cannot be taken apart: the answer is the dense one, and the provenance says why."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.module import register_module_forward_hook

from attribution import Attribution, ClassScore, Execution
from attribution.agreement import all_hold
from attribution.isolation.context import unwrap
from attribution.testing import guard
from attribution_hooks.incremental import differences as incremental
from attribution_hooks.incremental.graph import build
from tests.backends.occlusion.awkward import MODELS, Base, Build, Named, Several, made, part
from tests.backends.occlusion.truth import WINDOWS, ask, error, image

pytestmark = pytest.mark.usefixtures("eager")


@pytest.mark.parametrize("name", MODELS)
def test_the_answer_is_the_dense_one(name: str) -> None:
    model, x = made(name), image(2)
    with guard(model, x) if name != "old weight norm" else nullcontext():  # its own hook sets the weight
        result = ask(model, x)
    if name == "random":
        result = ask(model, x)  # the first call on a model also measures it, which draws numbers
    dense = ask(model, x, execution=Execution(incremental=False))
    assert all_hold(WINDOWS.agreement(result, dense)), result.provenance
    engine = MODELS[name][1]
    assert engine in ("either", result.provenance["engine"]), result.provenance
    assert (result.provenance["engine"] == "dense") == ("reason" in result.provenance)
    assert dense.provenance["reason"] == "Execution.incremental is False"
    if name != "random":
        assert error(unwrap(model), result, x) < 1e-12


class Disguised(Base):
    """Another network where it is traced."""

    def middle(self, x: Tensor) -> Tensor:
        return x.clone() if isinstance(x, fx.Proxy) else 2 * x


def test_a_trace_that_says_something_else_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[int, ...]] = []

    def counted(model: nn.Module, graph: fx.Graph, images: Tensor, **how: Any) -> Any:
        tried.append(tuple(images.shape))
        return build(model, graph, images, **how)

    monkeypatch.setattr(incremental, "build", counted)
    model, x = Disguised().double().eval(), image(2)
    for _ in range(2):
        result = ask(model, x)
        assert result.provenance["reason"] == "the traced model gives other logits than the model"
        assert error(model, result, x) < 1e-12
    assert tried == [(1, *x.shape[1:])]


def test_a_different_rule_is_caught() -> None:
    x = image(2)
    one, other = ask(made("own norm"), x), ask(made("base"), x)
    assert not all_hold(WINDOWS.agreement(one, other))


@pytest.mark.parametrize(("build", "output"), [(Named, "out"), (Several, 2)])
def test_outputs(build: Build, output: str | int) -> None:
    model, x = build().double().eval(), image(2)
    score = ClassScore("all", of="logit", output=output)
    result = ask(model, x, score=score)
    plain = ask(model, x, execution=Execution(incremental=False), score=score)
    assert result.provenance["engine"] == "incremental"
    assert (result.maps["input"] - plain.maps["input"]).abs().max() < 1e-12 * plain.maps["input"].abs().max()


def test_training_norms_depend_on_the_batch() -> None:
    model, x = part("norm", nn.BatchNorm2d(6, track_running_stats=False)).double().eval(), image()
    result = ask(model, x, execution=Execution(batch_size=1))
    assert error(model, result, x) < 1e-12, result.provenance


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    model, x = made("base").to(dtype), image().to(dtype)
    result, dense = ask(model, x), ask(model, x, execution=Execution(incremental=False))
    assert result.provenance["engine"] == "incremental"
    assert all_hold(WINDOWS.agreement(result, dense))


@contextmanager
def global_hook() -> Iterator[None]:
    handle = register_module_forward_hook(lambda module, args, out: out * 2 if isinstance(module, nn.ReLU) else None)
    try:
        yield
    finally:
        handle.remove()


def test_global_hooks() -> None:
    model, x = made("base"), image()
    with global_hook():
        result = ask(model, x)
        assert error(model, result, x) < 1e-12
    assert result.provenance["reason"] == "modules have forward hooks"
    after: Attribution = ask(model, x)
    assert after.provenance["engine"] == "incremental"
