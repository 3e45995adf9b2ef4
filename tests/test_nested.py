"""Tensors are found whatever they are packed in, each container once."""

from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from attribution.running.nested import items, leaves, tensors

A, B = torch.tensor([1.0]), torch.tensor([2.0])


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass
class Held:
    first: Any
    second: Any = None


def test_what_holds_tensors() -> None:
    for value in (
        (A, B),
        [A, [B]],
        {"a": A, "b": {"c": B}},
        OrderedDict(a=A, b=B),
        Pair(A, (B,)),
        Held(A, Held(B)),
        SimpleNamespace(a=A, b=[B]),
        BaseModelOutput(last_hidden_state=A, attentions=(B,)),
    ):
        found = list(tensors(value))
        assert len(found) == 2, value
        assert found[0] is A
        assert found[1] is B


def test_leaves_keep_their_order_and_what_is_no_tensor() -> None:
    assert list(leaves({"a": 3, "b": (None, "text"), "c": True})) == [3, None, "text", True]
    assert list(leaves(A)) == [A]
    assert items(nn.Linear(2, 2)) == items(Tensor) == items("text") == {}


def test_what_holds_itself_ends() -> None:
    ring: list[Any] = [A]
    ring.append(ring)
    knot = SimpleNamespace(tensor=B)
    knot.others = [knot, [knot] * 50, {"again": knot}]
    assert [id(each) for each in tensors([ring, knot])] == [id(A), id(B)]
