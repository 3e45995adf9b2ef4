"""CAMs of a layer's input and of one item of a tuple, by both backends as by a loop; what Captum cannot is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import LayerError, explain
from tests.conftest import BACKENDS, noise
from tests.techniques.cam import loops
from tests.techniques.cam.nets import CLASSES, seeded
from tests.techniques.cam.test_any_layer import BOTH, TECHNIQUES

X = noise(3, 3, 6, 7, dtype=torch.float64)


class Both(nn.Module):
    """Takes two maps by position and gives two, or tokens; ``writes``: into its first input."""

    def __init__(self, writes: bool = False) -> None:
        super().__init__()
        self.writes, self.one, self.other = writes, nn.Conv2d(4, 5, 2), nn.Conv2d(4, 6, 3)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.writes:
            a = a.mul_(1.5)
        one = self.one(a.tanh() + b)
        return one, self.other(b * a), one.flatten(2).mT * 2.0


class Net(nn.Module):
    """The inputs of ``pair`` have readers beside it; ``unread``: the last item has none at all."""

    def __init__(self, writes: bool = False, unread: bool = False) -> None:
        super().__init__()
        self.unread = unread
        self.stem, self.pair, self.act = nn.Conv2d(3, 4, 1), Both(writes), nn.ReLU(inplace=True)
        self.head = nn.Linear(20, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        a = self.stem(x)
        b = a.sigmoid() * a
        one, other, tokens = self.pair(a, b)
        beside = (a * b.roll(1, -1)).mean((2, 3))
        one = (self.act(one - 0.1) * one.roll(1, -1)).mean((2, 3))
        other = (other * other.roll(1, -2)).mean((2, 3))
        tokens = (tokens * tokens.roll(1, 1)).mean(1)
        parts = [beside, one, other, torch.zeros_like(tokens) if self.unread else tokens]
        return self.head(torch.cat(parts, dim=1).tanh())  # type: ignore[no-any-return]


def looped(technique: str, model: nn.Module, layer: str, item: int, entry: bool) -> Tensor:
    """By a hook of the test's own on one example at a time, and autograd of what it saw."""
    rows = []
    for n in range(len(X)):
        kept: list[Tensor] = []
        module = model.get_submodule(layer)
        if entry:
            handle = module.register_forward_pre_hook(lambda module, args, kept=kept: kept.append(args[item]))
        else:
            handle = module.register_forward_hook(lambda module, args, output, kept=kept: kept.append(output[item]))
        with torch.enable_grad():
            scores = model(X[n : n + 1].clone().requires_grad_())[0, [2, 4]]
            found = [torch.autograd.grad(score, kept[0], retain_graph=True)[0] for score in scores]
        handle.remove()
        activation = kept[0].detach()
        places = activation.shape[2:] if activation.ndim == 4 else (5, 6)
        values = (lambda a: a[0].flatten(1)) if activation.ndim == 4 else (lambda a: a[0].mT)
        rows.append(loops.cam(loops.FORMULAS[technique], values, tuple(places), activation, found))
    return torch.stack(rows)


def raw(technique: str, model: nn.Module, layer: str, backend: str, tokens: Any = None) -> Tensor:
    question = TECHNIQUES[technique](layers=(layer,), tokens=tokens)
    return explain(model, X, question, target=[(2, 4)] * 3, backend=backend).raw[layer]


NAMES = [
    ("pair[0]", 0, False),
    ("pair[1]", 1, False),
    ("pair[2]", 2, False),
    ("pair:in[0]", 0, True),
    ("pair:in[1]", 1, True),
    ("act:in", 0, True),
    ("stem:in", 0, True),
]


@BACKENDS
@BOTH
@pytest.mark.parametrize(("name", "item", "entry"), NAMES)
def test_as_by_a_loop(name: str, item: int, entry: bool, technique: str, backend: str) -> None:
    model = seeded(Net)
    if name == "act:in":
        model.act = nn.ReLU()  # Captum is given no layer that writes into its input
    expected = looped(technique, model, name.partition(":")[0].partition("[")[0], item, entry)
    found = raw(technique, model, name, backend, (0, 5, 6) if name == "pair[2]" else None)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("pair:in[0]", {"writes": True}, "is written into by the layer"),
        ("act:in", {}, "is written into by the layer"),
        ("pair[0]", {"unread": True}, "or what lies beside it, has no influence"),
        ("pair#0", {}, r"Captum takes no run"),
    ],
)
def test_what_captum_would_get_wrong_is_refused(name: str, fields: dict[str, bool], words: str) -> None:
    with pytest.raises(LayerError, match=words):
        raw("grad_cam", seeded(lambda: Net(**fields)), name, "captum")


def test_tokens_that_a_layer_is_given_are_refused_by_captum() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 6, 1), nn.LayerNorm(6), nn.Linear(6, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.conv(x).flatten(2).mT).tanh().mean(1))  # type: ignore[no-any-return]

    assert raw("grad_cam", seeded(Tokens), "norm:in", "hooks").shape == (3, 2, 6, 7)
    with pytest.raises(LayerError, match=r"'norm:in' is given tokens.*use backend='hooks'"):
        raw("grad_cam", seeded(Tokens), "norm:in", "captum")
