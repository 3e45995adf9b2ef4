"""Weights that torch would change without a word are refused: what is loaded is what the file holds."""

import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from attribution.errors import ModelError
from attribution.zoo.weights import fill, read_state


def net() -> nn.Module:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), head=nn.Linear(4, 5)))


def state(**changes: Any) -> "OrderedDict[str, Tensor]":
    """A net's weights, with some replaced: ``conv_weight`` is ``conv.weight``."""
    found = OrderedDict(net().state_dict())
    for name, change in changes.items():
        key = name.replace("_", ".", 1)
        found[key] = change(found[key])
    return found


def refused(weights: "OrderedDict[str, Tensor]", model: nn.Module | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        fill(model or net(), weights, "mine.pth")
    assert "\n" not in str(caught.value)
    return str(caught.value)


LOST: list[tuple[str, Callable[[Tensor], Tensor], str]] = [
    ("conv_weight", lambda w: torch.complex(w, w), "the imaginary part would be lost"),
    ("conv_weight", lambda w: torch.complex(w, torch.zeros_like(w)), "the imaginary part would be lost"),
    ("conv_weight", lambda w: (w * 127).to(torch.int8), "integers are no weights without their scale"),
    ("conv_bias", lambda w: w.to(torch.uint8), "integers are no weights without their scale"),
    ("head_bias", lambda w: w > 0, "integers are no weights without their scale"),
    ("norm_running_var", lambda w: w.to(torch.int64), "integers are no weights without their scale"),
    ("conv_weight", lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "dequantise"),
    ("conv_weight", lambda w: w.double() * 1e300, "some values are too large for it"),
    ("norm_num_batches_tracked", lambda w: w.double() + 0.5, "some values are lost in it"),
    ("norm_num_batches_tracked", lambda w: w.double() + 1e300, "some values are lost in it"),
]


@pytest.mark.parametrize(("name", "change", "says"), LOST)
def test_what_would_be_lost_is_told(name: str, change: Callable[[Tensor], Tensor], says: str) -> None:
    with warnings.catch_warnings(action="ignore"):  # torch means to give quantised tensors up
        told = refused(state(**{name: change}))
    assert says in told
    assert name.replace("_", ".", 1) in told


KEPT: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    ("conv_weight", lambda w: w.double()),
    ("conv_weight", lambda w: w.half()),
    ("conv_weight", lambda w: w.to(torch.bfloat16)),
    ("conv_weight", lambda w: w.double() / 3),  # rounded
    ("conv_weight", lambda w: torch.full_like(w, torch.inf).double()),
    ("norm_num_batches_tracked", lambda w: w.to(torch.int32) + 7),
    ("norm_num_batches_tracked", lambda w: w.float() + 7),
]


@pytest.mark.parametrize(("name", "change"), KEPT)
def test_what_rounds_at_most_is_taken(name: str, change: Callable[[Tensor], Tensor]) -> None:
    weights, model = state(**{name: change}), net()
    value = weights[name.replace("_", ".", 1)].clone()
    fill(model, weights, "mine.pth")
    found = model.state_dict()[name.replace("_", ".", 1)]
    assert torch.equal(found, value.to(found.dtype))


def test_a_half_model_takes_no_value_beyond_its_range() -> None:
    model = net().half()
    assert "torch.float32, the model's is torch.float16" in refused(state(conv_bias=lambda w: w * 0 + 1e6), model)
    fill(model, state(conv_bias=lambda w: w * 0 + 6e4), "mine.pth")


def test_a_complex_model_keeps_its_imaginary_part() -> None:
    model = nn.Linear(2, 2, bias=False, dtype=torch.complex64)
    value = torch.tensor([[1 + 2j, 0], [0, 3j]])
    fill(model, OrderedDict(weight=value), "mine.pth")
    assert torch.equal(model.weight.detach(), value)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
@pytest.mark.parametrize("first", [True, False])
def test_two_names_of_one_place_are_refused(prefix: str, first: bool) -> None:
    own, other = state(), OrderedDict((f"{prefix}{name}", value + 1) for name, value in state().items())
    merged = OrderedDict([*own.items(), *other.items()] if first else [*other.items(), *own.items()])
    told = refused(merged)
    assert "hold both" in told
    assert "which are one place of the model" in told


def test_one_stray_twin_is_enough() -> None:
    weights = state()
    weights["module.head.bias"] = torch.zeros(5)
    assert "hold both 'head.bias' and 'module.head.bias'" in refused(weights)


def test_some_names_may_have_the_prefix() -> None:
    weights, model = state(), net()
    weights["module.head.bias"] = weights.pop("head.bias") * 0 + 3
    fill(model, weights, "mine.pth")
    assert model.get_parameter("head.bias").tolist() == [3.0] * 5


def tied() -> nn.Module:
    model = nn.Sequential(OrderedDict(a=nn.Linear(3, 3), b=nn.Linear(3, 3)))
    model.get_submodule("b").weight = model.get_submodule("a").weight
    return model


def test_tied_weights_that_differ_are_refused() -> None:
    weights = OrderedDict((name, value.clone()) for name, value in tied().state_dict().items())
    fill(tied(), OrderedDict(weights), "mine.pth")
    weights["b.weight"] += 1
    assert "a.weight and b.weight are one tensor in the model, and two that differ in the file" in refused(
        weights, tied()
    )


def test_a_file_with_two_state_dicts_or_two_names_alike(tmp_path: Path) -> None:
    for content, says in (
        ({"state_dict": dict(state()), "model": dict(state())}, "under 'state_dict' and 'model'"),
        ({0: torch.ones(1), "0": torch.zeros(1)}, "two weights of one name"),
    ):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(ModelError, match=says):
            read_state(tmp_path / "a.pth")


def test_lazy_layers_take_their_shapes_from_the_file() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3))
    fill(model, OrderedDict({"0.weight": torch.ones(4, 3, 3, 3), "0.bias": torch.zeros(4)}), "mine.pth")
    assert model.get_parameter("0.weight").shape == (4, 3, 3, 3)


def test_a_model_whose_own_loading_fails() -> None:
    class Stubborn(nn.Linear):
        def _load_from_state_dict(self, *args: Any) -> None:
            raise KeyError("nothing here")

    model = Stubborn(2, 2)
    assert "do not fit the model: KeyError: 'nothing here'" in refused(OrderedDict(model.state_dict()), model)


def test_safetensors_of_integers_are_refused_too(tmp_path: Path) -> None:
    save_file(state(conv_weight=lambda w: (w * 127).to(torch.int8)), tmp_path / "a.safetensors")
    assert "integers are no weights" in refused(read_state(tmp_path / "a.safetensors"))
