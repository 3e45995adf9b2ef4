"""Every field of the guard, changed by hand; and what is said of it."""

import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attribution.testing import FIELDS, FootprintError, awkward, guard
from tests.conftest import noise


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        numbers, words = random.getstate(), np.random.get_state()  # noqa: NPY002  # the guard watches it
        yield
        random.setstate(numbers)
        np.random.set_state(words)  # noqa: NPY002
    torch.set_default_dtype(torch.float32)
    torch.use_deterministic_algorithms(False)


def _weight(model: nn.Module) -> nn.Parameter:
    return next(model.parameters())


def _swap(model: nn.Module) -> None:
    stem = model.get_submodule("stem")
    stem.weight = nn.Parameter(stem.get_parameter("weight").detach().clone())


ACTS: list[tuple[str, str, Callable[[nn.Module, Tensor], Any]]] = [
    ("hooks", "stem._forward_hooks", lambda m, x: m.get_submodule("stem").register_forward_hook(lambda *a: None)),
    (
        "hooks",
        "stem._backward_hooks",
        lambda m, x: m.get_submodule("stem").register_full_backward_hook(lambda *a: None),
    ),
    ("hooks", "stem.weight._backward_hooks", lambda m, x: _weight(m).register_hook(lambda g: None)),
    ("hooks", "inputs 0._backward_hooks", lambda m, x: x.register_hook(lambda g: None)),
    ("training", "norm", lambda m, x: m.get_submodule("norm").train()),
    ("parameters", "stem.weight", lambda m, x: _swap(m)),
    ("values", "stem.weight", lambda m, x: _weight(m).data.view(-1)[:1].add_(1)),
    ("buffers", "norm.running_var", lambda m, x: m.get_buffer("norm.running_var").mul_(2)),
    ("requires_grad", "stem.weight", lambda m, x: _weight(m).requires_grad_(False)),
    ("grad", "stem.weight", lambda m, x: setattr(_weight(m), "grad", torch.ones_like(_weight(m)))),
    ("inplace", "stem_relu", lambda m, x: setattr(m.get_submodule("stem_relu"), "inplace", False)),
    ("attributes", "the model.note", lambda m, x: setattr(m, "note", "seen")),
    ("attributes", "the model._modules", lambda m, x: setattr(m, "stem_relu", nn.Tanh())),
    ("inputs", "values 0", lambda m, x: x.data.mul_(2)),
    ("inputs", "form 0", lambda m, x: x.detach().mul_(1)),
    ("inputs", "requires_grad 0", lambda m, x: x.requires_grad_(False)),
    ("inputs", "grad 0", lambda m, x: setattr(x, "grad", torch.zeros_like(x))),
    ("random", "torch", lambda m, x: torch.rand(1)),
    ("random", "python", lambda m, x: random.random()),
    ("random", "numpy", lambda m, x: np.random.rand()),  # noqa: NPY002
    ("modes", "default dtype", lambda m, x: torch.set_default_dtype(torch.float64)),
    ("process", "warnings filters", lambda m, x: warnings.simplefilter("ignore")),
]


@pytest.mark.parametrize(("field", "place", "act"), ACTS, ids=[f"{field}-{place}" for field, place, _ in ACTS])
def test_a_change_is_seen_and_named(field: str, place: str, act: Callable[[nn.Module, Tensor], Any]) -> None:
    model, inputs = awkward("in-place ReLU"), noise(1, 3, 17, 23).requires_grad_()
    with pytest.raises(FootprintError, match="where none was expected") as caught, guard(model, inputs):
        act(model, inputs)
    assert (field, place) in {(change.field, change.place) for change in caught.value.changes}
    assert all(change.before != change.after for change in caught.value.changes), str(caught.value)


def test_every_field_is_tried() -> None:
    assert {field for field, _, _ in ACTS} == {*FIELDS}
    assert len(FIELDS) == 13


def test_before_and_after_are_told() -> None:
    model = awkward("in-place ReLU")
    with pytest.raises(FootprintError) as caught, guard(model):
        model.get_submodule("norm").train()
    assert str(caught.value).endswith("training: norm was eval, is train")


def test_nothing_is_said_where_nothing_changed() -> None:
    model, inputs = awkward("spectral norm"), noise(2, 3, 17, 23)
    inputs[0, 0, 0, 0] = float("nan")
    with guard(model, inputs), torch.no_grad():
        model(inputs.clone())


def test_a_clean_block_keeps_its_own_exception() -> None:
    with pytest.raises(KeyboardInterrupt), guard(awkward("in-place sum")):
        raise KeyboardInterrupt


def test_a_change_is_told_before_the_exception_of_the_block() -> None:
    model = awkward("in-place sum")

    def leave() -> None:
        with guard(model):
            model.train()
            raise KeyboardInterrupt

    with pytest.raises(FootprintError) as caught:
        leave()
    assert isinstance(caught.value.__context__, KeyboardInterrupt)
