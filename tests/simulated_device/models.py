"""Models that do not lie on one device."""

import torch
from torch import Tensor, nn

from attribution.testing import small_cnn


class Split(nn.Module):
    """`small_cnn` whose trunk begins on the first device and goes on, with the head, on the second."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        model = small_cnn()
        self.stem, self.pool = model.stem.to(first), model.pool
        self.body, self.head = model.body.to(second), model.head.to(second)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.stem(x)))
        x = torch.relu(self.body(x.to(next(self.body.parameters()).device)))
        logits: Tensor = self.head(x)
        return logits


class Returned(nn.Module):
    """A model whose logits come back to the host."""

    def __init__(self, device: str) -> None:
        super().__init__()
        model = small_cnn().to(device)
        self.stem, self.pool, self.body, self.head = model.stem, model.pool, model.body, model.head

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.body(self.pool(torch.relu(self.stem(x)))))
        logits: Tensor = self.head(x)
        return logits.cpu()


class Drawing(Split):
    """Adds noise of the second device's generator to the trunk, also in eval mode."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.stem(x))).to(next(self.body.parameters()).device)
        x = torch.relu(self.body(x + torch.randn_like(x)))
        logits: Tensor = self.head(x)
        return logits
