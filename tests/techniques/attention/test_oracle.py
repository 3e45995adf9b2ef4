"""Maps of tiny transformers against plain loops in float64, and by Captum where it can."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attribution import (
    Attention,
    AttentionRollout,
    Attribution,
    ClassScore,
    GradientAttention,
    LayerError,
    LeGrad,
    compare,
    explain,
)
from tests.techniques.attention import oracle
from tests.techniques.attention.nets import CASES, images, net

NAMES = ["torchvision ViT", "timm ViT", "timm ViT, registers and mean", "timm DeiT", "Hugging Face DINOv2",
         "Hugging Face DINOv2, registers"]  # fmt: skip
"""Of Hugging Face those whose own eager attention takes its softmax in float64: that of ViT and CLIP is float32's."""
TIMM = [name for name in NAMES if name.startswith("timm")]
EVERY = pytest.mark.parametrize("name", NAMES)
HEADS = pytest.mark.parametrize(
    "heads", ["mean", pytest.param("max", marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.slow)]
)
COUNT, TARGETS = 3, [[1, 3], [0, 2], [4, 1]]


@cache
def witnessed(name: str) -> tuple[list[list[oracle.Array]], dict[tuple[int, int], list[oracle.Array]]]:
    """Of each example the weights (heads, L, L) of each block, and their gradients of a class."""
    x, found, slopes = images(name, COUNT), [], {}
    for n in range(COUNT):
        logits, kept = oracle.weights(name, net(name), x[n : n + 1])
        found.append([weights[0].detach().numpy() for weights in kept])
        for target in TARGETS[n]:
            gradients = torch.autograd.grad(logits[0, target], kept, retain_graph=True)
            slopes[n, target] = [gradient[0].numpy() for gradient in gradients]
    return found, slopes


def asked(name: str, technique: Any, backend: str = "hooks") -> Attribution:
    target = ClassScore(torch.tensor(TARGETS), output=CASES[name].output) if technique.needs_target else None
    return explain(net(name), images(name, COUNT), technique, backend=backend, target=target)


def off(found: Tensor, expected: np.ndarray[Any, Any]) -> float:
    assert found.shape == expected.shape
    return float((found - torch.from_numpy(expected)).abs().max() / found.abs().max())


def the_row(name: str, matrix: oracle.Array, **mutant: Any) -> oracle.Array:
    tokens = CASES[name].tokens
    assert tokens is not None
    return oracle.row(matrix, tokens, CASES[name].query, **mutant)


@EVERY
@HEADS
def test_rollout_is_the_product_of_matrices(name: str, heads: Any) -> None:
    found = asked(name, AttentionRollout(heads=heads))
    (raw,) = found.raw.values()
    chains = [[oracle.fused(weights, heads) for weights in each] for each in witnessed(name)[0]]
    expected = np.stack([[the_row(name, oracle.rollout(chain))] for chain in chains])
    assert off(raw, expected) < 1e-10
    mutants = {
        "residual forgotten": [[the_row(name, oracle.rollout(chain, residual=False))] for chain in chains],
        "block order reversed": [[the_row(name, oracle.rollout(chain[::-1]))] for chain in chains],
        "prefix off by one": [[the_row(name, oracle.rollout(chain), shift=1)] for chain in chains],
    }
    if heads == "mean":
        mixed = [[oracle.fused(w, heads, wrong_axis=True) for w in each] for each in witnessed(name)[0]]
        mutants["heads over the wrong axis"] = [[the_row(name, oracle.rollout(chain))] for chain in mixed]
    assert all(off(raw, np.stack(mutant)) > 1e-3 for mutant in mutants.values())


@EVERY
@HEADS
def test_gradient_attention_is_the_chain_of_matrices(name: str, heads: Any) -> None:
    (raw,) = asked(name, GradientAttention(heads=heads)).raw.values()
    weights, slopes = witnessed(name)

    def chain(n: int, target: int) -> list[oracle.Array]:
        return [oracle.fused(np.maximum(g * a, 0), heads) for g, a in zip(slopes[n, target], weights[n], strict=True)]

    def maps(change: Any = lambda chain: chain, **mutant: Any) -> oracle.Array:
        shift = {"shift": mutant.pop("shift")} if "shift" in mutant else {}
        return np.stack([
            [the_row(name, oracle.relevance(change(chain(n, t)), **mutant), **shift) for t in TARGETS[n]]
            for n in range(COUNT)
        ])  # fmt: skip

    assert off(raw, maps()) < 1e-10
    assert off(raw, maps(residual=False)) > 1e-3
    assert off(raw, maps(lambda chain: chain[::-1])) > 1e-3
    assert off(raw, maps(shift=1)) > 1e-3


@EVERY
def test_attention_is_the_querys_row_of_each_layer(name: str) -> None:
    whole = asked(name, AttentionRollout())
    found = asked(name, Attention(layers=whole.technique.layers))  # type: ignore[attr-defined]
    for place, raw in enumerate(found.raw.values()):
        expected = [[the_row(name, oracle.fused(each[place], "mean"))] for each in witnessed(name)[0]]
        assert off(raw, np.stack(expected)) < 1e-10
    last = asked(name, Attention())
    assert torch.equal(last.map, [*found.maps.values()][-1])
    assert last.map.shape == (COUNT, 1, *CASES[name].size)


@EVERY
def test_legrad_takes_each_layers_own_score(name: str) -> None:
    (raw,) = asked(name, LeGrad()).raw.values()
    x, expected = images(name, COUNT), []
    whole = asked(name, AttentionRollout()).technique.layers  # type: ignore[attr-defined]
    blocks = [".".join(layer.split(".")[:-1]) for layer in whole]
    for n in range(COUNT):
        rows = []
        for target in TARGETS[n]:
            layers = []
            for place in range(len(blocks)):
                model = net(name)
                outputs: list[Any] = []
                for block in blocks[: place + 1][-1:]:
                    model.get_submodule(block).register_forward_hook(lambda m, a, o, kept=outputs: kept.append(o))
                model.get_submodule(blocks[-1]).register_forward_hook(lambda m, a, o, kept=outputs: kept[0])
                logits, kept = oracle.weights(name, model, x[n : n + 1])
                (slope,) = torch.autograd.grad(logits[0, target], kept[place])
                layers.append(np.maximum(slope[0].numpy(), 0).mean(axis=(0, 1)))
            leading, h, w = CASES[name].tokens or (0, 0, 0)
            rows.append(sum(layers)[leading:].reshape(h, w) / len(layers))
        expected.append(rows)
    assert off(raw, np.stack(expected)) < 1e-10
    assert off(raw, np.stack(expected) * len(blocks)) > 1e-3


@pytest.mark.parametrize("name", TIMM)
def test_captum_has_the_very_weights(name: str) -> None:
    """Bit by bit, of one head; sums over heads are rounded in another order."""
    for layer in (0, 2):
        technique = Attention(heads=1, query=0, layers=(f"blocks.{layer}",))
        maps = [asked(name, technique, backend).raw[f"blocks.{layer}.attn"] for backend in ("hooks", "captum")]
        assert torch.equal(*maps)


@pytest.mark.parametrize("name", TIMM)
@HEADS
def test_backends_agree(name: str, heads: Any) -> None:
    model, x = net(name), images(name, COUNT)
    for kind in (Attention, AttentionRollout, GradientAttention, LeGrad):
        technique: Any = kind(heads=heads)
        target = TARGETS if technique.needs_target else None
        assert compare(model, x, technique, target=target).holds
        assert all(module.fused_attn for module in model.modules() if hasattr(module, "fused_attn"))


@pytest.mark.parametrize("name", ["torchvision ViT", "Hugging Face ViT"])
def test_captum_says_what_it_would_need(name: str) -> None:
    with pytest.raises(LayerError, match=r"attn_drop.*use backend='hooks'"):
        asked(name, AttentionRollout(), "captum")
