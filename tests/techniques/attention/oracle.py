"""Attention weights had without the product's function mode, and the formulas in plain loops over tokens."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.techniques.attention.nets import logits

Array = np.ndarray[Any, np.dtype[Any]]


class Written(nn.Module):
    """torchvision's self-attention with its weights as a tensor of the graph."""

    def __init__(self, plain: nn.MultiheadAttention, kept: list[Tensor]) -> None:
        super().__init__()
        self.plain, self.kept = plain, kept

    def forward(self, x: Tensor, *_: Tensor, need_weights: bool = False) -> tuple[Tensor, None]:
        plain = self.plain
        q, k, v = (
            part.unflatten(-1, (plain.num_heads, -1)).transpose(1, 2)
            for part in (x @ plain.in_proj_weight.T + plain.in_proj_bias).chunk(3, dim=-1)
        )
        powers = torch.exp(torch.einsum("nhqd,nhkd->nhqk", q, k) / math.sqrt(q.shape[-1]))
        self.kept.append(powers / powers.sum(dim=-1, keepdim=True))
        gathered = torch.einsum("nhqk,nhkd->nqhd", self.kept[-1], v).flatten(2)
        return plain.out_proj(gathered), None


def weights(name: str, model: nn.Module, x: Tensor, **options: Any) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the weights (N, heads, L, L) of each block, in their graph; the model is changed for it."""
    kept: list[Tensor] = []
    if name.startswith("torchvision"):
        for module in model.modules():
            if isinstance(plain := getattr(module, "self_attention", None), nn.MultiheadAttention):
                module.self_attention = Written(plain, kept)
        return logits(name, model(x)), kept
    if name.startswith("Hugging Face"):
        model.set_attn_implementation("eager")  # type: ignore[operator]
        output = model(x, output_attentions=True, **options)
        return logits(name, output), list(output.attentions)
    for module in model.modules():
        if hasattr(module, "attn_drop") and hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]
            module.get_submodule("attn_drop").register_forward_hook(lambda module, args, output: kept.append(output))
    return logits(name, model(x)), kept


Fuse = Callable[[list[float]], float]
FUSE: dict[Any, Fuse] = {"mean": lambda h: sum(h) / len(h), "max": max, 1: lambda h: h[1]}


def fused(weights: Array, how: Any, *, wrong_axis: bool = False) -> Array:
    """(heads, L, S) → (L, S)."""
    if wrong_axis:
        return np.asarray(np.broadcast_to(weights.mean(axis=1, keepdims=True), weights.shape)[0])
    out = np.zeros(weights.shape[1:])
    for i, j in np.ndindex(*out.shape):
        out[i, j] = FUSE[how]([float(head[i, j]) for head in weights])
    return out


def product(a: Array, b: Array) -> Array:
    out = np.zeros((a.shape[0], b.shape[1]))
    for i, j in np.ndindex(*out.shape):
        for k in range(a.shape[1]):
            out[i, j] += a[i, k] * b[k, j]
    return out


def rollout(chain: list[Array], *, residual: bool = True) -> Array:
    """(L, L) of one example's matrices, each over its heads."""
    found = np.eye(len(chain[0]))
    for matrix in chain:
        mixed = matrix + np.eye(len(matrix)) * residual
        for row in mixed:
            row /= sum(row)
        found = product(mixed, found)
    return found


def relevance(chain: list[Array], *, residual: bool = True) -> Array:
    """(L, L): R − I of one example's matrices, each over its heads."""
    found = np.eye(len(chain[0]))
    for matrix in chain:
        found = found * residual + product(matrix, found)
    return found - np.eye(len(found))


def row(matrix: Array, tokens: tuple[int, ...], query: Any, *, shift: int = 0) -> Array:
    """The query's row on the grid."""
    leading, h, w = tokens
    out = np.zeros((h, w))
    queries = range(leading, len(matrix)) if query == "mean" else [query]
    for i, j in np.ndindex(h, w):
        place = (leading + shift + i * w + j) % matrix.shape[1]
        out[i, j] = sum(matrix[q, place] for q in queries) / len(queries)
    return out
