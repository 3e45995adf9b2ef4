"""The closed form is taken where it is true, and nowhere else: what fools its detection is caught by verification."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution import GradCAM, explain
from attribution.agreement import relative_tolerance
from attribution.techniques.tokens import Grid
from attribution_hooks.grad_cam import backward, closed
from tests.conftest import noise

D, K, SIZE = 6, 5, (9, 13)
FEW = [[0, 3], [4, 1], [2, 2]]

Forward = Callable[["Net", Tensor], Tensor]


@pytest.fixture(autouse=True)
def _two_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few targets are taken one by one, but where the rest is to be seen on small models."""
    monkeypatch.setattr(backward, "FEW_TARGETS", 1)


class Net(nn.Module):
    """A convolution with ReLU, as ``body``, and a tail to choose."""

    def __init__(self, forward: Forward, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, D, 3), nn.ReLU())
        self.pool, self.drop, self.linear = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.5), nn.Linear(D, K)
        self.spare, self.point = nn.Linear(D, K), nn.Conv2d(D, K, 1, bias=False)
        self.mix, self.norm = nn.Conv2d(D, D, 1), nn.LayerNorm(D)
        self.of = forward
        source = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=source) / 2)
        self.eval().to(dtype)

    def tail(self, a: Tensor) -> Tensor:
        return self.of(self, a)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.body(x))


def head(net: Net, a: Tensor) -> Tensor:
    return net.linear(net.drop(net.pool(a).flatten(1)))  # type: ignore[no-any-return]


def with_auxiliary(net: Net, a: Tensor) -> Tensor:
    net.spare(a.mean((2, 3)))
    return head(net, a)


TRUE: dict[str, Forward] = {
    "pool, flatten, dropout, linear": head,
    "mean by hand": lambda net, a: net.linear(a.mean((2, 3))),
    "pool, 1 × 1 convolution": lambda net, a: net.point(net.pool(a)).flatten(1),
    "1 × 1 convolution, pool": lambda net, a: net.pool(net.point(a)).flatten(1),
    "average pool of the whole map": lambda net, a: net.linear(F.avg_pool2d(a, a.shape[2:]).flatten(1)),
    "another linear of the same size runs": with_auxiliary,
    "the other linear of the same size": lambda net, a: net.spare(a.mean((2, 3))),
}


class Clipped(torch.autograd.Function):
    """The identity, whose gradient is clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g.clamp(-0.01, 0.01)


def twice_in_the_gradient(a: Tensor) -> Tensor:
    return a + (a - a.detach())


FOOLING: dict[str, Forward] = {
    "functional ReLU, without effect on the value": lambda net, a: head(net, F.relu(a)),
    "functional ReLU of what may be negative": lambda net, a: head(net, F.relu(a - 0.5)),
    "scaled before the pool": lambda net, a: head(net, a * 2),
    "logits scaled": lambda net, a: head(net, a) * 1.001,
    "one logit scaled": lambda net, a: head(net, a) * torch.tensor([1, 1, 1, 1.01, 1], dtype=a.dtype),
    "logits shifted by another use": lambda net, a: head(net, a) + net.spare(a.amax((2, 3))),
    "residual use": lambda net, a: head(net, a + net.mix(a)),
    "use in the gradient only": lambda net, a: head(net, twice_in_the_gradient(a)),
    "gradient clipped": lambda net, a: head(net, Clipped.apply(a)),
    "sum": lambda net, a: net.linear(a.sum((2, 3))),
    "softmax of the logits": lambda net, a: head(net, a).softmax(1),
    "normalised": lambda net, a: net.linear(net.norm(a.mean((2, 3)))),
    "channels swapped": lambda net, a: head(net, a.flip(1)),
}


def expected(net: Net, x: Tensor, targets: list[list[int]]) -> Tensor:
    """One autograd call per image and target, on the tail alone."""
    a = net.body(x).detach()
    rows = []
    for n, row in enumerate(targets):
        maps = []
        for c in row:
            one = a[n : n + 1].clone().requires_grad_()
            (g,) = torch.autograd.grad(net.tail(one)[0, c], one)
            maps.append((g.mean((2, 3), keepdim=True) * one.detach()).sum(1)[0])
        rows.append(torch.stack(maps))
    return torch.stack(rows)


def engine(net: nn.Module, x: Tensor, target: Any) -> tuple[Tensor, object]:
    result = explain(net, x, GradCAM(layers=("body",)), target=target)
    return result.raw["body"], result.provenance["engine body"]


def agrees(found: Tensor, exact: Tensor) -> bool:
    assert found.shape == exact.shape
    assert exact.abs().max() > 1e-4, "a map without signal proves nothing"
    return bool((found - exact).abs().max() <= relative_tolerance(found.dtype) * exact.abs().max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", TRUE)
def test_it_is_taken_where_it_is_true(name: str, dtype: torch.dtype) -> None:
    net, x = Net(TRUE[name], dtype), noise(3, 3, *SIZE, dtype=dtype)
    questions: list[tuple[Any, list[list[int]]]] = [
        (FEW, FEW),
        ("all", [[*range(K)]] * 3),
        ([[3, 1]] * 3, [[3, 1]] * 3),
        ([[4, 3, 2, 1, 0]] * 3, [[4, 3, 2, 1, 0]] * 3),
    ]
    for target, classes in questions:
        found, by = engine(net, x, target)
        assert by == "closed form"
        assert agrees(found, expected(net, x, classes))
    found, by = engine(net, x[:1], "all")
    assert by == "closed form"
    assert agrees(found, expected(net, x[:1], [[*range(K)]]))


@pytest.mark.parametrize("name", FOOLING)
def test_what_fools_the_detection_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = Net(FOOLING[name]), noise(3, 3, *SIZE, dtype=torch.float64)
    exact = expected(net, x, FEW)
    found, by = engine(net, x, FEW)
    assert by == "backward"
    assert agrees(found, exact)

    monkeypatch.setattr(closed, "_close", lambda *_: True)
    found, by = engine(net, x, FEW)
    assert by == "closed form"
    assert not agrees(found, exact), "the verification was not needed"


@pytest.mark.parametrize(("name", "differs"), [("logits scaled", "value"), ("gradient clipped", "gradient")])
def test_value_and_gradient_are_both_compared(name: str, differs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts: list[bool] = []
    original = closed._close

    def recorded(within: float, *pairs: tuple[Tensor, Tensor]) -> bool:
        verdicts.append(original(within, *pairs))
        return verdicts[-1]

    monkeypatch.setattr(closed, "_close", recorded)
    engine(Net(FOOLING[name]), noise(3, 3, *SIZE, dtype=torch.float64), FEW)
    candidates = {"value": [False, False] * 3, "gradient": [True, False] + [False, False] * 2}
    assert verdicts == candidates[differs]


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Which outputs' gradients were compared."""
    seen: list[tuple[int, ...]] = []
    original = closed.has_gradient

    def counted(weight: Tensor, logits: Tensor, output: Tensor, grid: Grid, target: Tensor, within: float) -> bool:
        seen.append(tuple(output.shape))
        return original(weight, logits, output, grid, target, within)

    monkeypatch.setattr(closed, "has_gradient", counted)
    return seen


@pytest.mark.parametrize("name", TRUE)
def test_gradient_is_compared_in_every_call(name: str, compared: list[tuple[int, ...]]) -> None:
    net, x = Net(TRUE[name]), noise(2, 3, *SIZE, dtype=torch.float64)
    for scale in (1, 3):
        assert engine(net, scale * x, [[0, 3], [4, 1]])[1] == "closed form"
    assert len(compared) == 2
    net.of = FOOLING["gradient clipped"]
    found, by = engine(net, x, FEW[:2])
    assert by == "backward"
    assert agrees(found, expected(net, x, FEW[:2]))
    assert len(compared) == 3


def test_values_are_compared_every_time() -> None:
    net, x = Net(lambda net, a: net.linear(a.mean((2, 3)).clamp(max=2.5))), noise(2, 3, *SIZE, dtype=torch.float64)
    assert engine(net, x, FEW[:2])[1] == "closed form"
    found, by = engine(net, 3 * x, FEW[:2])
    assert by == "backward", "the clamp is reached"
    assert agrees(found, expected(net, 3 * x, FEW[:2]))


class Scaled(torch.autograd.Function):
    """The identity, whose gradient is scaled."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] * ctx.scale, None


FLAG: list[bool] = [False]


def flagged(net: Net, a: Tensor) -> Tensor:
    """A hook on a tensor, set by what lies outside of the model."""
    pooled = a.mean((2, 3))
    if FLAG[0] and pooled.requires_grad:
        pooled.register_hook(lambda g: g * torch.tensor([1.0, -1.0] * (D // 2), dtype=g.dtype))
    return net.linear(pooled)  # type: ignore[no-any-return]


def test_a_gradient_that_changes_between_calls_is_compared_in_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    relu, x = Net(lambda net, a: net.linear(F.relu(a).mean((2, 3)))), noise(2, 3, *SIZE, dtype=torch.float64)
    with torch.no_grad():
        for parameter in relu.body.parameters():
            parameter.abs_()
    scaled = Net(lambda net, a: head(net, Scaled.apply(a, net.get_buffer("factor").item())))
    scaled.register_buffer("factor", torch.ones((), dtype=torch.float64))
    hooked = Net(flagged)

    def answers() -> list[bool]:
        scaled.get_buffer("factor").fill_(1.0)
        FLAG[0] = False
        assert engine(relu, x.abs() + 0.1, FEW[:2])[1] == "closed form"
        assert all(engine(net, x, FEW[:2])[1] == "closed form" for net in (scaled, hooked))
        scaled.get_buffer("factor").fill_(0.1)
        FLAG[0] = True
        return [agrees(engine(net, x, FEW[:2])[0], expected(net, x, FEW[:2])) for net in (relu, scaled, hooked)]

    assert answers() == [True, True, True]
    monkeypatch.setattr(closed, "has_gradient", lambda *_: True)
    assert answers() == [False, False, False], "the values alone are enough"
    FLAG[0] = False


def test_a_gradient_that_is_clipped_where_weights_are_large_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mixture in which each class has its share has small gradients, which no threshold reaches."""

    def limited(net: Net, a: Tensor) -> Tensor:
        pooled = a.mean((2, 3))
        if pooled.requires_grad:
            pooled.register_hook(lambda g: g.clamp(-2.0, 2.0))
        return net.linear(pooled)  # type: ignore[no-any-return]

    net, x = Net(limited), noise(2, 3, *SIZE, dtype=torch.float64)
    with torch.no_grad():
        net.linear.weight.mul_(60)
    exact = expected(net, x, FEW[:2])
    found, by = engine(net, x, FEW[:2])
    assert by == "backward"
    assert agrees(found, exact)
    monkeypatch.setattr(closed, "has_gradient", lambda *_: True)
    assert not agrees(engine(net, x, FEW[:2])[0], exact)


def test_a_class_of_small_weights_has_its_share_in_the_proof() -> None:
    """Its gradient alone is doubled, and would drown in a mixture where each class counts by its weights."""

    def doubled(net: Net, a: Tensor) -> Tensor:
        logits = head(net, a)
        last = logits[:, -1:]
        return torch.cat([logits[:, :-1], last + (last - last.detach())], 1)

    net, x = Net(doubled, torch.float32), noise(2, 3, *SIZE)
    with torch.no_grad():
        net.linear.weight[-1] *= 1e-7
    exact = expected(net, x, [[*range(K)]] * 2)
    found, by = engine(net, x, "all")
    assert by == "backward"
    torch.testing.assert_close(found[:, -1], exact[:, -1], rtol=1e-4, atol=0.0)


def clipping(module: nn.Module, grads: Any, *_: Any) -> Any:
    return tuple(g if g is None else g.clamp(-0.01, 0.01) for g in grads)


def on_the_tensor(module: nn.Module, args: Any, output: Tensor) -> None:
    if output.requires_grad:
        output.register_hook(lambda g: g.clamp(-0.01, 0.01))


def hook_of(kind: str, net: Net) -> None:
    if kind == "forward, scales":
        net.linear.register_forward_hook(lambda module, args, output: output * 2)
    elif kind == "forward, registers on the tensor":
        net.pool.register_forward_hook(on_the_tensor)
    elif kind == "forward pre":
        net.linear.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    elif kind == "backward":
        net.linear.register_full_backward_hook(clipping)
    elif kind == "backward pre":
        net.linear.register_full_backward_pre_hook(clipping)


@pytest.mark.parametrize(
    "kind", ["forward, scales", "forward, registers on the tensor", "forward pre", "backward", "backward pre"]
)
def test_hooks_of_the_users_rule_it_out(kind: str) -> None:
    net, x = Net(head), noise(3, 3, *SIZE, dtype=torch.float64)
    plain, by = engine(net, x, FEW)
    assert by == "closed form"
    hook_of(kind, net)
    found, by = engine(net, x, FEW)
    assert by == "backward"
    assert agrees(found, explain(net, x, GradCAM(layers=("body",)), target=FEW, backend="captum").raw["body"])
    assert not agrees(plain, found), "the hook changes nothing"


def test_frozen_weights_and_changed_weights() -> None:
    net, x = Net(head), noise(3, 3, *SIZE, dtype=torch.float64)
    net.requires_grad_(False)
    assert agrees(engine(net, x, "all")[0], expected(net, x, [[*range(K)]] * 3))
    net.linear.weight.mul_(-3)
    found, by = engine(net, x, "all")
    assert by == "closed form"
    assert agrees(found, expected(net, x, [[*range(K)]] * 3))
    net.of = FOOLING["residual use"]
    found, by = engine(net, x, "all")
    assert by == "backward"
    assert agrees(found, expected(net, x, [[*range(K)]] * 3))


def test_one_target_takes_one_backward_and_coarse_dtypes_autograd() -> None:
    net, x = Net(head), noise(3, 3, *SIZE, dtype=torch.float64)
    assert engine(net, x, 3)[1] == "backward"
    assert engine(net.to(torch.bfloat16), x.bfloat16(), FEW)[1] == "backward"


def test_layers_are_judged_one_by_one() -> None:
    net, x = Net(head), noise(3, 3, *SIZE, dtype=torch.float64)
    result = explain(net, x, GradCAM(layers=("body.0", "body")), target=FEW)
    assert result.provenance["engine body"] == "closed form"
    assert result.provenance["engine body.0"] == "backward"
    other = explain(net, x, GradCAM(layers=("body.0", "body")), target=FEW, backend="captum")
    assert [*result.raw] == ["body.0", "body"]
    for layer in result.raw:
        assert agrees(result.raw[layer], other.raw[layer])
