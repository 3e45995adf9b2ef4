"""Models that do not lie on one device."""

from typing import Any

import torch
from torch import Tensor, nn

from attribution.testing import small_cnn


class Split(nn.Module):
    """`small_cnn` whose trunk begins on the first device and goes on on the second, where the head is, or a third."""

    def __init__(self, first: str, second: str, third: str | None = None) -> None:
        super().__init__()
        model: Any = small_cnn()
        self.stem, self.pool = model.stem.to(first), model.pool
        self.body, self.head = model.body.to(second), model.head.to(third or second)

    def between(self, x: Tensor) -> Tensor:
        """What goes on to the second device."""
        return x.to(next(self.body.parameters()).device)

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(self.pool(torch.relu(self.stem(x))))
        x = torch.relu(self.body(x))
        logits: Tensor = self.head(x.to(next(self.head.parameters()).device))
        return logits


class Drawing(Split):
    """Adds noise of the second device's generator, also in eval mode."""

    def between(self, x: Tensor) -> Tensor:
        x = super().between(x)
        return x + torch.randn_like(x)


class Returning(Split):
    """Its logits come back to the host."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).cpu()
