"""How layers are joined: branches, names for the same memory, exits, and what only a covered image would show."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from attribution import Execution
from attribution.lowered import writes
from tests.backends.occlusion.truth import ask, error, image, net

pytestmark = pytest.mark.usefixtures("eager")

Body = Callable[[Any, Tensor], Tensor]


def layers() -> dict[str, nn.Module]:
    identity = nn.Conv2d(3, 6, 1)
    with torch.no_grad():
        identity.weight.copy_(torch.eye(3)[:, :, None, None].repeat(2, 1, 1, 1))
        nn.init.zeros_(identity.bias)  # type: ignore[arg-type]
    return {
        "a": nn.Conv2d(3, 6, 3, padding=1),
        "b": nn.Conv2d(6, 6, 5, padding=2, groups=2),
        "c": nn.LazyConv2d(6, 1),
        "gate": nn.Conv2d(6, 1, 3, padding=1),
        "copy": identity,
        "norm": nn.BatchNorm2d(6),
        "relu": nn.ReLU(),
        "relu_": nn.ReLU(inplace=True),
        "six_": nn.ReLU6(inplace=True),
        "drop": nn.Dropout(0.9),
        "pad": nn.ZeroPad2d((0, 1, 0, 1)),
        "pool": nn.MaxPool2d(3, 2, 1),
        "se": SqueezeExcitation(6, 2),
        "flat": nn.Flatten(),
    }


def residual(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    z = s.norm(s.b(s.relu_(y)))
    z += y
    out: Tensor = s.pool(s.relu_(z))
    return out


def sum_read_again(s: Any, x: Tensor) -> Tensor:
    y = s.copy(x)
    z = y
    y += s.relu(-1 * y)
    return s.b(y) + z  # type: ignore[no-any-return]


def gated_in_place(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    y *= y.mean((2, 3), keepdim=True).sigmoid()
    return s.b(y)  # type: ignore[no-any-return]


def gated_by_statement(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    y.mul_(y.mean((2, 3), keepdim=True).sigmoid())
    return s.b(y)  # type: ignore[no-any-return]


def rectified_by_statement(s: Any, x: Tensor) -> Tensor:
    y = s.copy(x)
    y.relu_()
    return s.b(y)  # type: ignore[no-any-return]


def view_written(s: Any, x: Tensor) -> Tensor:
    y = s.copy(x)
    y[:, :3].clamp_(max=-0.5)
    return s.b(y)  # type: ignore[no-any-return]


def halves(s: Any, x: Tensor) -> Tensor:
    first, second = s.a(x).chunk(2, dim=1)
    return s.c(torch.cat([first, first * second], dim=1))  # type: ignore[no-any-return]


def normalised_in_place(s: Any, x: Tensor) -> Tensor:
    x -= 0.4
    x /= 0.3
    return s.b(s.relu(s.a(x)))  # type: ignore[no-any-return]


def sub_in_place(s: Any, x: Tensor) -> Tensor:
    x.sub_(0.4).div_(0.3)
    return s.b(s.relu(s.a(x)))  # type: ignore[no-any-return]


def scaled_by_batch(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    return s.b(y * y.std())  # type: ignore[no-any-return]


BODIES: dict[str, Body] = {
    "residual": residual,
    "branches of different reach": lambda s, x: s.c(s.b(s.b(s.a(x))) * s.relu(s.a(x)) - s.a(x)),
    "cat": lambda s, x: s.c(torch.cat([s.a(x), s.b(s.a(x)), x], dim=1)),
    "cat of itself": lambda s, x: (lambda y: s.c(torch.cat((y, y), 1)))(s.a(x)),
    "twice": lambda s, x: (lambda y: s.b(y + y) * y)(s.a(x)),
    "square": lambda s, x: (lambda y: s.b(y * y))(s.a(x)),
    "shared": lambda s, x: s.b(s.relu_(s.b(s.relu_(s.b(s.a(x)))))),
    "quotient": lambda s, x: s.b(1 / (2 + s.a(x).sigmoid())),
    "constants": lambda s, x: s.b(3 - 2 * s.a(x).clamp(-0.5, max=0.5) / 0.7),
    "map for one channel": lambda s, x: (lambda y: s.b(s.gate(y).sigmoid() * y))(s.a(x)),
    "map for one channel, second": lambda s, x: (lambda y: s.b(y * torch.sigmoid(s.gate(y))))(s.a(x)),
    "in place after a dropout that is read again": lambda s, x: (lambda y: s.relu_(s.drop(y)) + y)(s.copy(x)),
    "pre-activation": lambda s, x: (lambda y: s.b(s.relu_(y)) + y)(s.copy(x)),
    "functional in place": lambda s, x: (lambda y: s.b(F.relu(y, inplace=True)) + y)(s.copy(x)),
    "positional in place": lambda s, x: (lambda y: s.b(F.relu(y, True)) + y)(s.copy(x)),
    "in place on what a rest reads": lambda s, x: (lambda y: s.six_(y).flatten(1) + y.flatten(1))(s.copy(x)),
    "padding before in place": lambda s, x: (lambda y: F.pad(s.relu_(s.pad(y)), (0, -1, 0, -1)) - y)(s.a(x)),
    "statement": rectified_by_statement,
    "sum read again": sum_read_again,
    "gated in place": gated_in_place,
    "gated by statement": gated_by_statement,
    "a view is written": view_written,
    "normalised in place": normalised_in_place,
    "subtracted in place": sub_in_place,
    "squeeze and excitation": lambda s, x: s.b(s.relu_(s.se(s.b(s.a(x))))),
    "several exits": lambda s, x: (lambda y: torch.cat([s.flat(y), s.flat(s.pool(s.b(y))), x.amax((2, 3))], 1))(s.a(x)),
    "the image itself": lambda s, x: x.mean(1),
    "halves": halves,
    "slices": lambda s, x: s.c(s.a(x)[:, :3, 1:]),
    "flipped": lambda s, x: s.b(s.a(x).flip(3)) + s.a(x).roll(2, 2),
    "transposed": lambda s, x: s.b(s.a(x).transpose(2, 3)),
    "interpolated": lambda s, x: s.b(F.interpolate(s.a(x), scale_factor=2.0)),
    "unfolded": lambda s, x: F.unfold(s.a(x), 2, stride=5),
    "view": lambda s, x: s.b(s.a(x)).view(x.size(0), -1),
    "view of a shape": lambda s, x: (lambda y: y.view(*y.shape[:2], -1).softmax(2))(s.b(s.a(x))),
    "functional": lambda s, x: s.c(F.max_pool2d(F.dropout(F.gelu(s.a(x)), training=False), 3, stride=2, padding=1)),
    "functional average": lambda s, x: s.c(F.avg_pool2d(F.leaky_relu(s.a(x), 0.3), 2, ceil_mode=True)),
    "functional convolution": lambda s, x: F.conv2d(s.a(x), s.b.weight, padding=2, groups=2),
    "sort of pixels": lambda s, x: s.a(x).flatten(2).sort(2).values,
}

SEVERAL = (
    "residual",
    "map for one channel",
    "gated in place",
    "subtracted in place",
    "several exits",
    "halves",
    "view",
)
POSITIVE = ("pre-activation", "functional in place", "positional in place", "statement", "a view is written")
FULL = {*POSITIVE, "in place after a dropout that is read again", "in place on what a rest reads", "sum read again"}


@pytest.mark.parametrize(("name", "n"), [*((name, 1) for name in BODIES), *((name, 2) for name in SEVERAL)])
def test_graph(name: str, n: int) -> None:
    model, x = net(BODIES[name], layers), image(n)
    if name in FULL:  # equal on the clean image whatever the engine makes of it: nothing there is negative
        x = x.abs() / x.abs().max() + 0.5
    result = ask(model, x)
    assert error(model, result, x) < 1e-12, result.provenance
    assert name not in FULL or result.provenance["engine"] == "dense"


@pytest.mark.usefixtures("unproved")
@pytest.mark.parametrize("name", ["pre-activation", "functional in place", "sum read again"])
def test_without_the_look_at_writes_a_covered_image_goes_wrong(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "written", lambda node, modules: None)
    model, x = net(BODIES[name], layers), image()
    x = x.abs() / x.abs().max() + 0.5
    result = ask(model, x)
    assert result.provenance["engine"] == "incremental"
    assert error(model, result, x) > 1e-3


def test_a_number_of_the_clean_batch_is_no_constant() -> None:
    model, x = net(scaled_by_batch, layers), image(2)
    result = ask(model, x, execution=Execution(batch_size=1))
    assert error(model, result, x) < 1e-12, result.provenance
