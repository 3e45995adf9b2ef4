"""Layers through which the images of a batch see each other, and heads whose rows are no images."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attribution.testing.models.deceptive.plain import Plain


class _Centred(nn.Module):
    """Takes half of the batch's mean away."""

    def forward(self, x: Tensor) -> Tensor:
        return x - 0.5 * x.mean(dim=0)


class _Attending(nn.Module):
    """Each image looks at all images of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1)
        likeness = rows @ rows.T / rows.shape[1]
        return (likeness.softmax(dim=1) @ rows).reshape(x.shape)


MIXING: dict[str, Callable[[], nn.Module]] = {
    "batch norm without statistics": lambda: nn.BatchNorm2d(3, track_running_stats=False),
    "the batch's mean": _Centred,
    "attention over the batch": _Attending,
}
"""Layers (N, 3, H, W) → the same."""

OTHER_ROWS: dict[str, Callable[[Tensor], Tensor]] = {
    "classes first": lambda logits: logits.T,
    "the mean of the batch": lambda logits: logits.mean(dim=0, keepdim=True),
    "every image twice": lambda logits: torch.cat([logits, logits]),
    "one row more": lambda logits: torch.cat([logits, logits[:1]]),
}
"""(N, K) → what has another first axis for two images of five classes."""


class _Fold(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2 * x.shape[0], x.shape[1] // 2, *x.shape[2:])


class Folded(Plain):
    """Its layer ``fold`` gives two rows for each image; the next step joins them again."""

    def __init__(self) -> None:
        super().__init__()
        self.fold = _Fold()
        self.eval()

    def between(self, x: Tensor) -> Tensor:
        """(N, 6, h, w) → the same."""
        folded: Tensor = self.fold(x)
        return folded.reshape(x.shape)
