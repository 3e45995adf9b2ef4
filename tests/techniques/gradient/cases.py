"""Questions to gradient techniques in float64: a model, its inputs, a score, and what that score is of one example."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attribution import RegionScore, SimilarityScore, ValueScore

TENSORS = tuple[Tensor, ...]


@dataclass(frozen=True)
class Case:
    """One question.

    Attributes:
        model: In float64, eval mode.
        inputs: All that the model takes, by position; floats are explained.
        target: As the user asks.
        scores: Of the model's output (1, …) for one example, and that example's place: one number per target.
    """

    model: nn.Module
    inputs: TENSORS
    target: Any
    scores: Callable[[Any, int], list[Tensor]]

    @property
    def given(self) -> Any:
        """What `explain` is given."""
        return self.inputs if len(self.inputs) > 1 else self.inputs[0]

    @property
    def explained(self) -> list[int]:
        """Places of the inputs that are explained."""
        return [place for place, tensor in enumerate(self.inputs) if tensor.is_floating_point()]

    def keys(self) -> list[str]:
        """What their maps are called."""
        return [f"input.{place}" for place in self.explained] if len(self.inputs) > 1 else ["input"]


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _made(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        return build().double().eval()


def _signal() -> nn.Module:
    first = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool1d(2), nn.Flatten())
    return nn.Sequential(first, nn.Linear(8, 4))


def _image() -> nn.Module:
    """A ReLU in place comes first, which would write into the user's tensor, or into a leaf."""
    return nn.Sequential(
        nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4)
    )


def _volume() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(3, 4))


def _features() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))


class _Two(nn.Module):
    """An image and features, and an integer for each example, which shifts the class."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.features, self.shift = _image(), _features(), nn.Embedding(5, 4)

    def forward(self, image: Tensor, features: Tensor, number: Tensor) -> Tensor:
        out: Tensor = self.image(image) * self.features(features).sigmoid() * self.shift(number)
        return out


def _segmentation() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 1))


def _regression() -> nn.Module:
    return nn.Sequential(_image(), nn.Tanh(), nn.Linear(4, 1))


def _classes(*columns: list[int]) -> Callable[[Tensor, int], list[Tensor]]:
    return lambda output, n: [output[0, column] for column in columns[n]]


def cases(batch: int) -> dict[str, Case]:
    """By name, for so many examples, at most 3."""
    image, targets = noise(batch, 3, 7, 10), [[2, 0], [1, 3], [0, 2]][:batch]
    several = _classes(*targets)
    masks = noise(batch, 7, 10, seed=9) > 0.5
    references = noise(batch, 4, seed=8)
    net = _made(_segmentation)
    predicted = net(image).argmax(dim=1) == 1
    whole = noise(4, seed=4)

    def by_hand(output: Tensor, examples: Tensor) -> Tensor:
        found: Tensor = (output * references[examples]).square().sum(dim=1)
        return found

    def cosine(output: Tensor, reference: Tensor) -> Tensor:
        found: Tensor = (output[0] @ reference) / (output[0].norm() * reference.norm())
        return found

    return {
        "signal": Case(_made(_signal), (noise(batch, 2, 9),), targets, several),
        "image": Case(_made(_image), (image,), targets, several),
        "volume": Case(_made(_volume), (noise(batch, 1, 3, 5, 4),), targets, several),
        "features": Case(_made(_features), (noise(batch, 6),), targets, several),
        "two": Case(_made(_Two), (image, noise(batch, 6, seed=3), torch.arange(batch) + 1), targets, several),
        "region": Case(
            net, (image,), RegionScore(2, masks), lambda output, n: [output[0, 2][masks[n]].sum() / masks[n].sum()]
        ),
        "predicted region": Case(
            net, (image,), RegionScore(1, reduce="sum"), lambda output, n: [output[0, 1][predicted[n]].sum()]
        ),
        "value": Case(_made(_regression), (image,), ValueScore(), lambda output, n: [output[0, 0]]),
        "similarity": Case(
            _made(_image),
            (image,),
            SimilarityScore(references, each=True),
            lambda output, n: [cosine(output, references[n])],
        ),
        "similarities": Case(
            _made(_image),
            (image,),
            SimilarityScore(torch.stack([whole, -whole.flip(0)]), each=False),
            lambda output, n: [cosine(output, whole), cosine(output, -whole.flip(0))],
        ),
        "callable": Case(
            _made(_image), (image,), by_hand, lambda output, n: [(output[0] * references[n]).square().sum()]
        ),
    }


NAMES = tuple(cases(1))
