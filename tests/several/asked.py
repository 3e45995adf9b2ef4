"""What the tests of several techniques at once ask, and how two answers are held against each other."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attribution import (
    Activations,
    Attribution,
    ElementWiseCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    InputXGradient,
    IntegratedGradients,
    LayerCAM,
    Occlusion,
    Saliency,
    SmoothGrad,
    Technique,
    XGradCAM,
    explain,
)
from attribution.techniques.cam.family import CAM
from attribution.testing import calibrated

CAMS: tuple[Callable[..., CAM], ...] = (GradCAM, LayerCAM, HiResCAM, ElementWiseCAM, XGradCAM, GradCAMPlusPlus)
LAYER = ("body",)


def cams(*layers: str) -> dict[str, Technique]:
    """All CAMs of the same layers."""
    made = [kind(layers=layers or LAYER) for kind in CAMS]
    return {each.name: each for each in made}


def gradients() -> dict[str, Technique]:
    """Two that share the gradient at the inputs, three that share their samples, and two of different points."""
    noisy = {each: SmoothGrad(samples=5, statistic=each) for each in ("mean", "squared", "variance")}
    lines = {f"{steps} steps": IntegratedGradients(steps=steps, baseline=0.3) for steps in (3, 4)}
    return {"saliency": Saliency(), "input_x_gradient": InputXGradient(), **noisy, **lines}


def every() -> dict[str, Technique]:
    """The same, with one whose classes are probabilities, and one that explains no score."""
    others = {"occlusion": Occlusion(window=5, stride=4), "activations": Activations(layers=LAYER)}
    return {**cams(), **gradients(), **others}


def alone(model: nn.Module, inputs: Any, technique: Technique, target: Any, **manner: Any) -> Attribution:
    """A call of its own."""
    return explain(model, inputs, technique, target=target if technique.needs_target else None, **manner)


def unlike(found: Attribution, other: Attribution, within: float | None = None) -> str:
    """What differs in two answers, by a bit or ``within`` a part of the largest value; empty where nothing does."""
    for (group, a), b in zip(_told(found).items(), _told(other).values(), strict=True):
        if [*a] != [*b]:
            return f"{group}: {[*a]} against {[*b]}"
        for name in a:
            if a[name].shape != b[name].shape or a[name].dtype != b[name].dtype:
                return f"{group} {name!r}: another shape or dtype"
            if within is None and not torch.equal(a[name], b[name]):
                return f"{group} {name!r}: other bits"
            if within is not None and not (a[name] - b[name]).abs().max() <= within * b[name].abs().max():
                return f"{group} {name!r}: beyond rounding"
    return "" if found.score == other.score and found.technique == other.technique else "another question"


def _told(answer: Attribution) -> dict[str, Mapping[str, Tensor]]:
    scores = {} if answer.scores is None else {"": answer.scores}
    return {"maps": answer.maps, "raw": answer.raw, "extras": answer.extras, "scores": scores}


ROWS: list[int] = []
"""Of each forward of a `Counted`, wherever a copy of it runs."""


class Counted(nn.Module):
    """A small network that tells how many rows each forward has."""

    def __init__(self, *, pooled: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.body = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.act = nn.ReLU()
        self.head = nn.Linear(8 if pooled else 8 * 6, 7)
        self.pool = nn.AdaptiveAvgPool2d(1 if pooled else (2, 3))

    def forward(self, x: Tensor) -> Tensor:
        ROWS.append(len(x))
        hidden = self.act(self.body(self.stem(x).relu()))
        return self.head(self.pool(hidden).flatten(1))  # type: ignore[no-any-return]


def counted(*, pooled: bool = True, dtype: torch.dtype = torch.float32) -> nn.Module:
    return calibrated(lambda: Counted(pooled=pooled), 0, dtype)
