"""Attention for the kit's small models, which are convolutional, so that who reads it meets the same traps."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Block(nn.Module):
    """Self-attention of two heads beside a residual connection, in the form of timm's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.qkv, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.attn_drop, self.fused_attn = nn.Dropout(0.5), True

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) → the same."""
        q, k, v = self.qkv(self.norm(x)).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        if self.fused_attn:
            found = F.scaled_dot_product_attention(q, k, v)
        else:
            found = self.attn_drop((q * q.shape[-1] ** -0.5 @ k.mT).softmax(dim=-1)) @ v
        return x + self.proj(found.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class _Attention(nn.Sequential):
    """Blocks of attention over the places of a grid."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, D, h, w) → the same; (N, D, tokens, 1) where some of them are left out on the way."""
        tokens: Tensor = super().forward(x.flatten(2).mT)
        whole = tokens.shape[1] == x[0, 0].numel()
        grid: Tensor = tokens.mT.unflatten(2, x.shape[2:]) if whole else tokens.mT.unsqueeze(3)
        return grid


def attending(model: nn.Module) -> None:
    """Put two blocks of attention, ``head.attention.0`` and ``.1``, in front of a model's ``head``, on its grid.

    Weights come from a seed of their own; the global random numbers are untouched. A model that has them, or has no
    head, stays as it is.
    """
    head = model._modules.get("head")
    if head is None or "attention" in head._modules:
        return
    linear = next(module for module in head.modules() if isinstance(module, nn.Linear))
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(0)
        attention = _Attention(_Block(linear.in_features), _Block(linear.in_features))
        for parameter in attention.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.7)
    attention = attention.to(linear.weight.device, linear.weight.dtype).train(head.training)
    attended = nn.Sequential(OrderedDict(attention=attention, **dict(head.named_children())))
    attended.training = head.training
    model._modules["head"] = attended
