"""The closed form is taken where it is true, and nowhere else: what fools its detection is caught by verification."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution import GradCAM, explain
from attribution.agreement import relative_tolerance
from attribution.techniques.cam.tokens import Grid
from attribution_hooks.cam import closed_form as closed
from tests.backends.closed_forms import FEW, FOOLING, SIZE, TRUE, D, K, Net, engine, expected, head
from tests.conftest import noise

pytestmark = pytest.mark.usefixtures("two_are_many")


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

    def recorded(within: float, found: Tensor, expected: Tensor) -> bool:
        verdicts.append(original(within, found, expected))
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
