"""Attention as strangers write it: sequences first, einsum, several products, compiled blocks, hooks, other queries."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution import (
    Attention,
    AttentionRollout,
    GradientAttention,
    LayerError,
    LeGrad,
    TokenOcclusion,
    compare,
    explain,
)
from attribution.testing import guard
from tests.conftest import noise
from tests.techniques.attention.nets import images, net

TECHNIQUES = [Attention(), AttentionRollout(), GradientAttention(), LeGrad(), TokenOcclusion(window=2)]
EVERY = pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda technique: technique.name)
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class Net(nn.Module):
    """Patches, blocks, a mean and a head."""

    def __init__(self, *blocks: nn.Module, first: bool = False) -> None:
        super().__init__()
        self.patch, self.blocks, self.head = nn.Conv2d(3, 16, 8, stride=8), nn.ModuleList(blocks), nn.Linear(16, 5)
        self.first = first
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).mT
        x = x.transpose(0, 1) if self.first else x
        for block in self.blocks:
            x = block(x)
        x = x.transpose(0, 1) if self.first else x
        return self.head(x.mean(dim=1))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Two heads, by whatever function it is given."""

    def __init__(self, attend: Attend) -> None:
        super().__init__()
        self.qkv, self.attend = nn.Linear(16, 48), attend

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        return x + self.attend(q, k, v).transpose(1, 2).flatten(2)


def rows(q: Tensor, k: Tensor) -> Tensor:
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)  # type: ignore[no-any-return]


def twice(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    found = rows(q, k)
    return found @ v + found @ v.cumsum(dim=3)


def built(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return make().double().eval()


def maps(model: nn.Module, technique: Any) -> Tensor:
    target = [[1, 3], [0, 2], [4, 4]] if technique.needs_target else None
    (raw,) = explain(model, noise(3, 3, 24, 40, dtype=torch.float64), technique, target=target).raw.values()
    assert raw.abs().max() > 0
    return raw


def alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() < 1e-10 * a.abs().max())


@EVERY
def test_a_sequence_may_come_first(technique: Any) -> None:
    def make(first: bool) -> nn.Module:
        return Net(*(nn.TransformerEncoderLayer(16, 2, 32, batch_first=not first) for _ in range(2)), first=first)

    assert alike(maps(built(lambda: make(True)), technique), maps(built(lambda: make(False)), technique))


@EVERY
@pytest.mark.parametrize(
    "attend",
    [
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
        lambda q, k, v: torch.einsum("nhqk,nhkd->nhqd", rows(q, k), v),
        lambda q, k, v: torch.einsum("nhqk,nhkd->nhqd", [rows(q, k), v]),
        lambda q, k, v: F.dropout(F.softmax(input=q @ k.mT / q.shape[-1] ** 0.5, dim=3), 0.5, training=False) @ v,
    ],
    ids=["fused", "einsum", "einsum of a list", "dropout"],
)
def test_ways_of_writing_it_are_one(attend: Attend, technique: Any) -> None:
    plain = built(lambda: Net(*(Block(lambda q, k, v: rows(q, k).matmul(v)) for _ in range(2))))
    assert alike(maps(built(lambda: Net(Block(attend), Block(attend))), technique), maps(plain, technique))


@pytest.mark.parametrize("technique", TECHNIQUES[2:], ids=lambda technique: technique.name)
def test_rows_that_multiply_twice_are_seen_in_both_products(technique: Any) -> None:
    """Of frozen parameters the first rows have no graph, so that others stand in for them: in both products."""
    model = built(lambda: Net(Block(twice), Block(twice)))
    whole = maps(model, technique)
    assert alike(maps(model.requires_grad_(False), technique), whole)
    once = built(lambda: Net(*(Block(lambda q, k, v: rows(q, k) @ (v + v.cumsum(dim=3))) for _ in range(2))))
    assert alike(maps(once, technique), whole)


def test_hidden_keys_are_hidden_from_both_products() -> None:
    model = built(lambda: Net(Block(twice), Block(twice)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.3)  # else some rows are 1 at a place and 0 elsewhere
    x = noise(3, 3, 24, 40, dtype=torch.float64)
    assert compare(model, x, TokenOcclusion(window=2), target=[[1, 3], [0, 2], [4, 4]]).holds


@pytest.mark.slow
def test_compiled_blocks_are_seen() -> None:
    attend = F.scaled_dot_product_attention
    plain = built(lambda: Net(Block(attend), Block(attend)))
    wanted = maps(plain, GradientAttention())
    plain.blocks[1] = torch.compile(plain.blocks[1], backend="eager")  # type: ignore[index, operator, assignment, arg-type]
    assert alike(maps(plain, GradientAttention()), wanted)


@EVERY
@pytest.mark.parametrize(
    "attend",
    [
        lambda q, k, v: (v.mT @ rows(q, k).mT).mT,
        lambda q, k, v: (rows(q, k).unsqueeze(-1) * v.unsqueeze(2)).sum(dim=3),
        lambda q, k, v: (q @ k.mT).log_softmax(dim=-1).exp() @ v,
        lambda q, k, v: (rows(q, k) * 0.5) @ v,
    ],
    ids=["transposed", "product and sum", "logarithms", "scaled"],
)
def test_what_is_written_otherwise_is_refused(attend: Attend, technique: Any) -> None:
    with pytest.raises(LayerError, match="computes no attention that can be seen"):
        maps(built(lambda: Net(Block(attend), Block(attend))), technique)


@EVERY
def test_the_users_hooks_on_attention_count(technique: Any) -> None:
    model, plain = (built(lambda: Net(*(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True) for _ in range(2))))
                    for _ in range(2))  # fmt: skip
    for layer in model.blocks:  # type: ignore[union-attr]
        layer.self_attn.register_forward_hook(lambda module, args, output: (2 * output[0], output[1]))
    for layer in plain.blocks:  # type: ignore[union-attr]
        with torch.no_grad():
            layer.self_attn.out_proj.weight.mul_(2)
            layer.self_attn.out_proj.bias.mul_(2)
    with guard(model):
        found = maps(model, technique)
    assert alike(found, maps(plain, technique))


class Queries(nn.Module):
    """Learnt queries that look at an encoder's tokens, as in DETR."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.queries = nn.Conv2d(3, 16, 8, stride=8), nn.Parameter(noise(7, 16))
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.decoder = nn.TransformerDecoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.encoder(self.patch(x).flatten(2).mT)
        return self.head(self.decoder(self.queries.expand(len(x), -1, -1), tokens).mean(dim=1))  # type: ignore[no-any-return]


def test_cross_attention_has_a_row_for_each_query_and_no_chain() -> None:
    model, x = built(Queries), noise(2, 3, 24, 40, dtype=torch.float64)
    with pytest.raises(LayerError, match=r"7 queries that are none of its 15 keys; say whose row: query=0 to 6"):
        explain(model, x, Attention())
    found = explain(model, x, Attention(query=5)).raw["decoder.multihead_attn"]
    given: list[Any] = []
    attention = model.get_submodule("decoder.multihead_attn")
    handle = attention.register_forward_pre_hook(
        lambda module, args, options: given.append((args, options)), with_kwargs=True
    )
    model(x)
    handle.remove()
    ((args, options),) = given
    weights = attention(*args, **options | {"need_weights": True})[1]
    assert alike(found[:, 0].flatten(1), weights[:, 5])
    assert not alike(found[:, 0].flatten(1), weights[:, 4])
    for technique in (AttentionRollout(), GradientAttention(), LeGrad(), TokenOcclusion()):
        with pytest.raises(LayerError, match="different sizes have no product"):
            explain(model, x, technique, target=1 if technique.needs_target else None)
    with pytest.raises(LayerError, match="has queries 0 to 6; query is 7"):
        explain(model, x, Attention(query=7))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_of_coarse_models_are_added_up_in_float32(dtype: torch.dtype) -> None:
    exact = explain(net("timm ViT"), images("timm ViT"), AttentionRollout()).raw["input"]
    found = explain(net("timm ViT", dtype), images("timm ViT", dtype=dtype), AttentionRollout()).raw["input"]
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 0.1 * exact.abs().max()
