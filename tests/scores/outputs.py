"""What nets return, in all the forms that scores read, and the masks, references and boxes of the questions."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.scores.by_hand import number, overlap
from tests.scores.net import SIZE

Pair = namedtuple("Pair", ["scores", "hidden"])


@dataclass
class Plain:
    hidden: Tensor
    scores: Tensor


@dataclass
class Returned(OrderedDict):  # type: ignore[type-arg]
    """As Hugging Face returns it: a dataclass, a mapping and a sequence at once."""

    logits: Tensor | None = None

    def __post_init__(self) -> None:
        self["logits"] = self.logits


def pooled(maps: Tensor) -> Tensor:
    return maps.mean(dim=(2, 3))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MASKS = drawn(3, *SIZE, seed=5) > 0.6
WEIGHTS = drawn(*SIZE, seed=6).abs()
REFERENCES = drawn(3, 4, seed=7)
TWENTY = drawn(4, 20, seed=8)
ANCHORS = torch.tensor([[0, 0, 4, 4], [3, 1, 8, 6], [2, 2, 7, 9]], dtype=torch.float64)
BOXES = torch.tensor([[1, 1, 5, 6], [2, 0, 8, 5], [0, 3, 6, 8]], dtype=torch.float64)


def detected(maps: Tensor) -> list[dict[str, Tensor]]:
    """As torchvision's detectors: boxes of scores above a half, another number of them for each image."""
    found = []
    for row in pooled(maps):
        scores = (2 * row[:3]).sigmoid()
        kept = scores > 0.35
        shift = row[3].tanh()
        labels = torch.tensor([1, 0, 1]).to(maps.device)
        found.append({"boxes": (ANCHORS.to(maps.device) + shift)[kept], "scores": scores[kept], "labels": labels[kept]})
    return found


def anchored(maps: Tensor) -> tuple[Tensor, Tensor]:
    """As a head of anchors: (N, 3, 4) and (N, 3, 2)."""
    rows = pooled(maps)
    boxes = ANCHORS.to(maps.device) + rows[:, 3].tanh()[:, None, None]
    return boxes, torch.stack([rows[:, :3], -rows[:, :3]], dim=2).sigmoid()


def found_again(output: list[dict[str, Tensor]], n: int, clean: Any) -> list[Tensor]:
    (item,) = output
    values = [
        overlap(box, BOXES[n]) * score
        for box, score, label in zip(item["boxes"], item["scores"], item["labels"], strict=True)
        if int(label) == 1
    ]
    return [max(values, key=number, default=torch.zeros((), dtype=torch.float64))]


def per_image(output: Tensor, examples: Tensor) -> Tensor:
    return (output[:, 1] * MASKS.to(output)[examples]).sum(dim=(1, 2))


def second_head(output: Tensor) -> Tensor:
    return output[:, 1]


def energy(features: Tensor) -> Tensor:
    """(N, 2) of a layer's output."""
    return features[:, :2].square().mean((2, 3))


def product(output: tuple[Tensor, Tensor]) -> Tensor:
    return output[1][:, 0] * output[0].amax(dim=(1, 2, 3))
