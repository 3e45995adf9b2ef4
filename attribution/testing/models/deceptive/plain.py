"""``Plain``: a small model with places for what deceives."""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from attribution.testing.models.small import small_cnn


class Plain(nn.Module):
    """The layers of `small_cnn` in a forward of its own, with three places for what deceives."""

    def __init__(self, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        for name, child in small_cnn(dtype=dtype).named_children():
            self.add_module(name, child)

    def before(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) → the same."""
        return x

    def between(self, x: Tensor) -> Tensor:
        """(N, 6, h, w) → the same."""
        return x

    def after(self, logits: Tensor) -> Tensor:
        """(N, K) → what the model returns."""
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, 5)."""
        modules: Any = self
        x = modules.pool(modules.stem_relu(modules.stem(self.before(x))))
        return self.after(modules.head(modules.body_relu(modules.body(self.between(x)))))


def fronted(front: nn.Module, *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """`small_cnn` behind one more layer, (N, 3, H, W) → the same; eval mode."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(front=front.to(dtype))
    parts.update(small_cnn(dtype=dtype).named_children())
    return nn.Sequential(parts).eval()
