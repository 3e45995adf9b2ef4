"""Attention is seen as it is: logits unchanged, rows that add up to 1, one map for each block."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution import AttentionRollout, Inputs, LayerError, explain
from attribution.isolation.context import isolated
from attribution.layers import attentions, opened
from tests.conftest import noise
from tests.draw import some
from tests.techniques.attention.nets import CASES, WHOLE, images, logits, net

EVERY = pytest.mark.parametrize("name", some([pytest.param(name, id=name) for name in CASES], 0.4))


def keeping(seen: list[Tensor]) -> Any:
    def see(module: nn.Module | None, weights: Tensor) -> Tensor:
        seen.append(weights)
        return weights

    return see


@pytest.mark.parametrize(("dtype", "drawn", "limit"), [(torch.float32, False, 1e-6), (torch.float64, True, 1e-12)])
@EVERY
def test_logits_stay_and_rows_add_up_to_one(name: str, dtype: torch.dtype, drawn: bool, limit: float) -> None:
    """With the weights that a library starts with in float32; with larger ones in float64."""
    model, x, seen = net(name, dtype, drawn=drawn), images(name, dtype=dtype), list[Tensor]()
    with torch.no_grad():
        plain = logits(name, model(x))
        with opened(model, keeping(seen)):
            found = logits(name, model(x))
    assert (found - plain).abs().max() <= limit * plain.abs().max().clamp(min=1)
    assert len(seen) == CASES[name].maps
    assert all((weights.sum(dim=-1) - 1).abs().max() < 1e-5 for weights in seen)
    assert not any(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@EVERY
def test_what_is_told_of_each_family(name: str) -> None:
    case, x = CASES[name], images(name)
    with isolated(net(name)) as (model, _):
        found = attentions(model, Inputs.of(x))
        assert len(found.layers) == case.maps
        assert len({each.name for each in found.layers}) == case.maps
        if case.tokens is None:
            assert found.changed or any(each.windows for each in found.layers)
            with pytest.raises(LayerError, match=r"in windows of|changed between their softmax|different sizes"):
                AttentionRollout().resolve(model, Inputs.of(x))
            return
        question = AttentionRollout().resolve(model, Inputs.of(x))
        reading = question.reading(model, Inputs.of(x))
        assert not found.changed
    assert question.layers == tuple(each.name for each in found.layers)
    assert ((reading.leading, *reading.places), reading.query) == (case.tokens, case.query)


class Plain(nn.Module):
    """One attention, by whatever function it is given."""

    def __init__(self, attend: object) -> None:
        super().__init__()
        self.attend = attend

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.attend(q, k, v)  # type: ignore[operator, no-any-return]


MASK = torch.tensor([[True, False, True, True], [False] * 4, [True] * 4])
ATTENDING = {
    "plain": lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
    "scale": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3),
    "mask": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=MASK),
    "bias": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=q[..., :1] - k[..., 1].unsqueeze(-2)),
    "causal": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "grouped": lambda q, k, v: F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], enable_gqa=True),
}


@pytest.mark.parametrize("kind", ATTENDING)
def test_every_argument_of_the_fused_function(kind: str) -> None:
    q, k, v = noise(2, 4, 3, 6), noise(2, 4, 4, 6, seed=1), noise(2, 4, 4, 5, seed=2)
    model, seen = Plain(ATTENDING[kind]), list[Tensor]()
    plain = model(q, k, v)
    with opened(model, keeping(seen)):
        found = model(q, k, v)
    assert torch.allclose(found, plain, atol=1e-6)
    assert seen[0].shape == (2, 4, 3, 4)
    values = v if kind != "grouped" else v[:, :2].repeat_interleave(2, dim=1)
    assert torch.allclose(seen[0] @ values, plain, atol=1e-6)


class Encoder(nn.Module):
    """torch's own layers, whose fast path computes attention in one kernel."""

    def __init__(self, *, need_weights: bool = False) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 8, stride=8)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(16, 5)
        self.last, self.need_weights = nn.MultiheadAttention(16, 2, batch_first=True), need_weights

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(self.patch(x).flatten(2).mT)
        return self.head(self.last(x, x, x, need_weights=self.need_weights)[0].mean(dim=1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("need_weights", [False, True])
def test_the_fast_path_of_torchs_layers_is_off(need_weights: bool) -> None:
    torch.manual_seed(0)
    model, x = Encoder(need_weights=need_weights).double().eval(), noise(3, 3, 16, 40, dtype=torch.float64)
    result = explain(model, x, AttentionRollout())
    assert result.technique.layers == ("encoder.layers.0.self_attn", "encoder.layers.1.self_attn", "last")  # type: ignore[attr-defined]
    assert result.map.shape == (3, 1, 16, 40)
    assert torch.allclose(result.raw["input"].sum(dim=(2, 3)), torch.ones(3, 1, dtype=torch.float64))


class Silent(nn.Module):
    """Blocks of one class, of which one gathers by a kernel of its own."""

    def __init__(self, silent: int | None) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 8, stride=8)
        self.blocks = nn.ModuleList(Block(own=index == silent) for index in range(3))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).mT
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=1))  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self, *, own: bool) -> None:
        super().__init__()
        self.own, self.qkv = own, nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.own:
            powers = (q @ k.mT).exp()
            return x + powers / powers.sum(dim=-1, keepdim=True) @ v  # type: ignore[no-any-return]
        return x + F.scaled_dot_product_attention(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1)).squeeze(1)


def test_a_block_without_a_map_is_refused() -> None:
    x = noise(1, 3, 16, 24)
    assert explain(Silent(None).eval(), x, AttentionRollout()).map.shape == (1, 1, 16, 24)
    with pytest.raises(LayerError, match=r"no attention is seen in 'blocks\.1'"):
        explain(Silent(1).eval(), x, AttentionRollout())
    named = explain(Silent(1).eval(), x, AttentionRollout(layers=("blocks.0", "blocks.2")))
    assert named.technique.layers == ("blocks.0", "blocks.2")  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _no_mode_is_left() -> Iterator[None]:
    yield
    assert not torch.overrides._get_current_function_mode_stack()


def test_of_whole_families_something_is_shown() -> None:
    assert len(WHOLE) >= 12
