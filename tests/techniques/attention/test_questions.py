"""What is asked and refused: layers, heads, queries, tokens; and what is computed for it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attribution import (
    Attention,
    AttentionRollout,
    Execution,
    GradientAttention,
    InputError,
    LayerError,
    LeGrad,
    ModelError,
    compare,
    explain,
)
from attribution.testing import guard, small_cnn
from attribution_hooks.attention.rollout import carried
from tests.conftest import noise
from tests.techniques.attention.nets import images, net

NAME = "timm ViT"
EVERY = [Attention, AttentionRollout, GradientAttention, LeGrad]


def asked(technique: Any, target: Any = 1, model: nn.Module | None = None, **how: Any) -> Any:
    target = target if technique.needs_target else None
    return explain(net(NAME) if model is None else model, images(NAME), technique, target=target, **how)


@pytest.mark.parametrize("kind", EVERY)
def test_a_model_without_attention_is_refused(kind: Any) -> None:
    with pytest.raises(LayerError, match=r"Sequential computes no attention that can be seen"):
        explain(small_cnn(), noise(1, 3, 17, 23), kind(), target=1 if kind.needs_target else None)


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize(
    ("field", "value"),
    [("heads", "min"), ("heads", -1), ("heads", True), ("tokens", 3), ("tokens", (1, 0, 5)), ("layers", "blocks"),
     ("upsample", 2)],
)  # fmt: skip
def test_wrong_fields_are_refused(kind: Any, field: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"{kind.__name__}\.{field}"):
        kind(**{field: value})


@pytest.mark.parametrize("value", ["first", -1, 1.0])
def test_wrong_queries_are_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"Attention\.query"):
        Attention(query=value)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"layers": ("blocks.1.mlp",)}, r"'blocks\.1\.mlp' computes no attention; these do: blocks\.0\.attn"),
        ({"layers": ("blocks.7",)}, r"blocks\.7"),
        ({"layers": ("blocks.1:in",)}, r"neither items nor an input"),
        ({"heads": 2}, r"has heads 0 to 1; heads is 2"),
        ({"query": 16}, r"has queries 0 to 15; query is 16"),
        ({"tokens": (1, 4, 4)}, r"attends to 16 tokens"),
    ],
)
def test_what_the_model_has_not_is_refused(wrong: Any, text: str) -> None:
    with pytest.raises(LayerError, match=text):
        asked(Attention(**wrong))


def test_layers_by_their_container_and_one_by_one() -> None:
    whole = asked(AttentionRollout()).technique
    assert whole.layers == ("blocks.0.attn", "blocks.1.attn", "blocks.2.attn")
    assert asked(AttentionRollout(layers=("blocks",))).technique == whole
    assert asked(AttentionRollout(layers=("blocks.2", "blocks.0"))).technique.layers == whole.layers[::2]
    assert [*asked(Attention()).maps] == ["blocks.2.attn"]
    assert [*asked(Attention(layers=("blocks.0", "blocks.2.attn"))).maps] == ["blocks.0.attn", "blocks.2.attn"]


def test_any_query_and_its_mean() -> None:
    rows = [asked(Attention(query=q, upsample=False)).map for q in range(1, 16)]
    mean = asked(Attention(query="mean", upsample=False)).map
    assert mean.shape == (2, 1, 3, 5)
    assert torch.allclose(torch.stack(rows).mean(dim=0), mean, atol=1e-12)
    assert not torch.allclose(rows[0], rows[1], atol=1e-3)


def test_a_head_of_zeros_leaves_the_class_token() -> None:
    model = net(NAME)
    head = model.get_submodule("head")
    assert isinstance(head, nn.Linear)
    nn.init.zeros_(head.weight)
    assert asked(AttentionRollout(), model=model).provenance["query"] == "0"


SEEN: list[int] = []
"""Batches of every forward, of the model and its copy."""


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net(NAME)

    def forward(self, x: Tensor) -> Tensor:
        SEEN.append(len(x))
        out: Tensor = self.net(x)
        return out


@pytest.mark.parametrize(("kind", "forwards"), [(GradientAttention, 1), (LeGrad, 2), (AttentionRollout, 1)])
def test_targets_share_their_forwards(kind: Any, forwards: int) -> None:
    model = Counting().eval()
    counted = []
    for target in (1, [[0, 1, 2, 3]] * 2, [[4, 0, 2, 3]] * 2):
        SEEN.clear()
        asked(kind(), target, model)
        counted.append(len(SEEN))
    assert counted[1:] == [forwards] * 2, "the first call looks at the model"


@pytest.mark.parametrize("kind", EVERY)
def test_nothing_is_left_and_batches_change_nothing(kind: Any) -> None:
    model = net(NAME)
    with guard(model):
        whole = asked(kind(), [[1, 2], [0, 4]], model)
    parts = asked(kind(), [[1, 2], [0, 4]], model, execution=Execution(batch_size=1))
    for name, map_ in whole.raw.items():
        assert torch.allclose(map_, parts.raw[name], atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_coarser_models_and_autocast(dtype: torch.dtype) -> None:
    exact = asked(GradientAttention()).raw["input"]
    model, x = net(NAME, torch.float32), images(NAME, dtype=torch.float32)
    how = Execution() if dtype == torch.float32 else Execution(autocast=dtype)
    found = explain(model, x, GradientAttention(), target=1, execution=how).raw["input"].double()
    assert (found - exact).abs().max() < {torch.float32: 1e-4, torch.bfloat16: 0.3}[dtype] * exact.abs().max()


def test_blocks_that_run_again_in_the_backward_are_refused() -> None:
    model = net(NAME)
    blocks: Any = model.get_submodule("blocks")
    for block in blocks:
        block.attn.forward = Checkpointed(block.attn.forward)
    with pytest.raises(ModelError, match="no gradient could be taken through the model"):
        asked(GradientAttention(), model=model)
    assert asked(AttentionRollout(), model=model).map.shape == (2, 1, 48, 80)


class Checkpointed:
    def __init__(self, forward: Any) -> None:
        self.forward = forward

    def __call__(self, x: Tensor, *args: Any, **options: Any) -> Any:
        from torch.utils.checkpoint import checkpoint

        return checkpoint(self.forward, x, *args, use_reentrant=False, **options)


def test_both_backends_are_compared() -> None:
    both = compare(net(NAME), images(NAME), AttentionRollout())
    assert both.holds
    assert [*both.attributions] == ["captum", "hooks"]


def test_rollout_multiplies_a_row_with_each_matrix() -> None:
    matrices = [noise(3, 16, 16, seed=seed).softmax(dim=-1) for seed in range(4)]
    with FlopCounterMode(display=False) as row:
        found = carried(torch.eye(16)[:1].expand(3, 16), matrices)
    with FlopCounterMode(display=False) as product:
        chain = torch.eye(16).expand(3, 16, 16)
        for matrix in matrices:
            chain = torch.bmm((matrix + torch.eye(16)) / 2, chain)
    assert torch.allclose(found, chain[:, 0], atol=1e-6)
    assert row.get_total_flops() == 4 * 3 * 2 * 16 * 16
    assert product.get_total_flops() == 16 * row.get_total_flops(), "of 197 tokens 197 times as many"
