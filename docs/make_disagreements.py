"""Writes ``docs/disagreements.md``: ``uv run --group peers python docs/make_disagreements.py``.

Bundled SqueezeNet 1.1 on scikit-image's photo "coffee" unless a row says otherwise; nothing is downloaded. Every size
is measured anew, and nothing is written where one has changed.
"""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution import (
    EigenCAM,
    FinerScore,
    GradCAM,
    GradCAMPlusPlus,
    GuidedBackprop,
    IntegratedGradients,
    ScoreCAM,
    Technique,
    explain,
    zoo,
)
from benchmarks.peers.pytorch_grad_cam import scaled
from benchmarks.peers.tap import Tap, grad_cam, tap

PAGE = Path(__file__).parent / "disagreements.md"
LAYER, BEFORE_IN_PLACE = "features.12", "features.12.expand3x3"
FIRES = tuple(f"features.{index}" for index in (7, 9, 10, 12))
STEPS = 5
SMALL, SCORED = (64, 64), "features.4"
"""A small image and a layer of few channels, each of which is a forward."""
WITHIN = 0.1
"""A size that has changed by a larger part of itself is another one."""

LEFT = 1e-4
"""What may be left where ours are computed in the library's way."""


class Measured(NamedTuple):
    """How far a library is off ours, and how far once ours are computed in its way; parts of the largest value."""

    size: float
    left: float


@dataclass(frozen=True)
class Row:
    """A known disagreement.

    Attributes:
        technique: Its name here.
        library: The distribution.
        version: In which it was measured.
        what: Of the library.
        size: As it was measured.
        reason: Which the other measure proves.
        measure: Does it again.
        portable: Whether the size is the same on every machine.
    """

    technique: str
    library: str
    version: str
    what: str
    size: float
    reason: str
    measure: Callable[[], Measured]
    portable: bool = True

    def changed(self, found: Measured) -> str:
        """What is to be said of another size or reason; empty where both are as they were."""
        here = f"{self.technique}, {self.what} of {self.library} {version(self.library)} (pinned for {self.version})"
        if self.portable and abs(found.size - self.size) > WITHIN * self.size:
            return f"{here}: the size is {found.size:.3g} and was {self.size:.3g}; look whether it was mended"
        return f"{here}: {found.left:.1e} is not explained by the reason" if found.left > LEFT else ""


@cache
def _shown() -> tuple[nn.Module, Tensor, int]:
    loaded = zoo.load("bundled:squeezenet1_1")
    return loaded.model, loaded.inputs(zoo.sample_photo("coffee")), loaded.index("espresso")


def _off(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / torch.maximum(a.abs().max(), b.abs().max()))


def _raw(technique: Technique, backend: str = "hooks", layer: str = LAYER, **given: Any) -> Tensor:
    model, image, target = _shown()
    return explain(model, image, technique, backend=backend, **{"target": target} | given).raw[layer][:, 0]


def _tap(layer: str = LAYER) -> Tap:
    model, image, target = _shown()
    return tap(copy.deepcopy(model), layer, image, [target])


def _like(weights: Tensor, activation: Tensor) -> Tensor:
    return (weights * activation).sum(dim=1)


def _plus_plus(backend: str, alpha: Callable[[Tensor, Tensor], Tensor]) -> Measured:
    """Theirs, and the formula with their α (g, Σ A); each map by its own maximum, since none has a unit."""
    technique, held = GradCAMPlusPlus(layers=(LAYER,)), _tap()
    a, g = held.before, held.before_gradient
    weights = (alpha(g, a.sum(dim=(2, 3), keepdim=True)) * g.relu()).sum(dim=(2, 3), keepdim=True)
    theirs, ours, way = (map_ / map_.max() for map_ in (_raw(technique, backend), _raw(technique), _like(weights, a)))
    return Measured(_off(theirs, ours), _off(theirs, way))


def _in_place(backend: str) -> Measured:
    technique, held = GradCAM(layers=(BEFORE_IN_PLACE,)), _tap(BEFORE_IN_PLACE)
    gradient = held.after_gradient if backend == "torchcam" else held.before_gradient
    theirs = _raw(technique, backend, BEFORE_IN_PLACE)
    way = grad_cam(held.after, gradient)[:, 0]
    return Measured(_off(theirs, _raw(technique, layer=BEFORE_IN_PLACE)), _off(theirs, way))


def _eigen() -> Measured:
    """The part of the maps whose sign is the other one, and what is left where it is turned."""
    model, image, _ = _shown()
    ours, theirs = (
        explain(model, image, EigenCAM(layers=FIRES), backend=backend).raw for backend in ("hooks", "pytorch_grad_cam")
    )
    signs = {layer: float((ours[layer] * theirs[layer]).sum().sign()) for layer in FIRES}
    turned = sum(sign < 0 for sign in signs.values()) / len(FIRES)
    return Measured(turned, max(_off(signs[layer] * theirs[layer], ours[layer]) for layer in FIRES))


def _score(backend: str, enlarged: Callable[[Tensor], Tensor]) -> Measured:
    """Theirs, ours, and the formula with their masks (K, H, W) of the channels (K, h, w)."""
    model, image, target = _shown()
    small, technique = F.interpolate(image, SMALL, mode="area"), ScoreCAM(layers=(SCORED,))
    theirs, ours = (
        explain(model, small, technique, backend=by, target=target).raw[SCORED] for by in (backend, "hooks")
    )
    with torch.no_grad():
        channels = tap(copy.deepcopy(model), SCORED, small, [target]).before[0]
        scores = torch.cat([model(part)[:, target] for part in (small * enlarged(channels)[:, None]).split(16)])
        way = torch.einsum("k,khw->hw", scores.softmax(0), channels)
    return Measured(_off(theirs, ours), _off(theirs[0, 0], way))


def _unit(channels: Tensor) -> Tensor:
    low, high = channels.amin((1, 2), keepdim=True), channels.amax((1, 2), keepdim=True)
    return (channels - low) / (high - low + 1e-8)


def _enlarged(channels: Tensor, *, corners: bool) -> Tensor:
    return F.interpolate(channels[None], SMALL, mode="bilinear", align_corners=corners)[0]


def _finer() -> Measured:
    """The two libraries, scaled to 0…1 and enlarged as pytorch-grad-cam does, and ours in either reading."""
    from pytorch_grad_cam import FinerCAM as Softmax
    from torchcam.methods import FinerCAM as Equal

    model, image, target = copy.deepcopy(_shown()[0]), *_shown()[1:]
    technique, size = GradCAM(layers=(LAYER,)), tuple(image.shape[2:])
    soft, equal = (
        scaled(_raw(technique, target=FinerScore(target, strength=strength, weights=weights))[None], size)
        for strength, weights in ((1, "softmax"), (0.6, "equal"))
    )
    with Equal(model, LAYER) as method:
        by_torchcam = scaled(method(target, model(image), normalized=False)[0].detach()[None], size)
    by_pytorch = torch.from_numpy(Softmax(model, [model.get_submodule(LAYER)])(image, target_idx=target))
    return Measured(
        float((by_torchcam - by_pytorch).abs().max()),
        max(float((equal - by_torchcam).abs().max()), float((soft - by_pytorch).abs().max())),
    )


def _trapezoid() -> Measured:
    model, image, target = _shown()
    wide, technique = copy.deepcopy(model).double(), IntegratedGradients(steps=STEPS, rule="riemann_trapezoid")
    ours, theirs = (
        explain(wide, image.double(), technique, backend=backend, target=target).map for backend in ("hooks", "captum")
    )
    return Measured(_off(theirs, ours), _off(theirs, ours * (STEPS - 1) / STEPS))


class Functional(nn.Module):
    """A net whose ReLUs are functions."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 3

    def forward(self, x: Tensor) -> Tensor:
        """(N, 5)."""
        return F.relu(self.second(F.relu(self.first(x)))).mean((2, 3))


def _guided() -> Measured:
    from captum import attr

    image = torch.randn(1, 3, 17, 23, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = attr.GuidedBackprop(Functional()).attribute(image, target=1)
    ours = explain(Functional(), image.detach(), GuidedBackprop(), target=1).map[:, 0]
    plain = torch.autograd.grad(Functional()(image)[0, 1], image)[0]
    return Measured(_off(theirs, ours), _off(theirs, plain))


def _replaced() -> Measured:
    """The part of a model's ReLUs that are another module afterwards; what is left is the part whose class is too."""
    from pytorch_grad_cam import GuidedBackpropReLUModel

    model, image = copy.deepcopy(_shown()[0]), _shown()[1].clone()
    names = [name for name, module in model.named_modules() if isinstance(module, nn.ReLU)]
    before = [model.get_submodule(name) for name in names]
    GuidedBackpropReLUModel(model)(image, target_category=_shown()[2])
    after = [model.get_submodule(name) for name in names]
    other = sum(a is not b for a, b in zip(before, after, strict=True)) / len(names)
    return Measured(other, sum(not isinstance(module, nn.ReLU) for module in after) / len(names))


PYTORCH_GRAD_CAM, TORCHCAM, CAPTUM = ("grad-cam", "1.5.7"), ("torchcam", "0.5.0"), ("captum", "0.9.0")
_OVERWRITTEN = "the next module works in place, and its hook keeps no copy: the activation is the overwritten one"

ROWS: tuple[Row, ...] = (
    Row(
        "Grad-CAM++", *TORCHCAM, "`GradCAMpp`", 0.470,
        "`alpha[mask].div_(…)` divides a copy, so that α stays g²",
        lambda: _plus_plus("torchcam", lambda g, total: g**2),
    ),
    Row(
        "Grad-CAM++", *PYTORCH_GRAD_CAM, "`GradCAMPlusPlus`", 0.206,
        "10⁻⁶ is added to the denominator, which is of the size of g²",
        lambda: _plus_plus("pytorch_grad_cam", lambda g, total: g**2 / (2 * g**2 + total * g**3 + 1e-6)),
    ),
    Row(
        "Grad-CAM before an in-place ReLU", *TORCHCAM, "`GradCAM`", 1.55,
        f"{_OVERWRITTEN}, and so is the tensor of which it takes the gradient; it explains the next module",
        lambda: _in_place("torchcam"),
    ),
    Row(
        "Grad-CAM before an in-place ReLU", *PYTORCH_GRAD_CAM, "`GradCAM`", 1.06,
        f"{_OVERWRITTEN}, and the gradient is that of the layer's own",
        lambda: _in_place("pytorch_grad_cam"),
    ),
    Row(
        "Eigen-CAM", *PYTORCH_GRAD_CAM, "`EigenCAM`", 0.25,
        "LAPACK's sign is kept, so that after the ReLU a map may be the complement; the size is the part of four "
        "layers where it is, on this machine",
        _eigen, portable=False,
    ),
    Row(
        "Score-CAM", *PYTORCH_GRAD_CAM, "`ScoreCAM`", 0.548,
        "channels are enlarged with aligned corners; image of 64 × 64, layer `features.4`",
        lambda: _score("pytorch_grad_cam", lambda channels: _unit(_enlarged(channels, corners=True))),
    ),
    Row(
        "Score-CAM", *TORCHCAM, "`ScoreCAM`", 0.286,
        "channels are scaled to 0…1 first and enlarged then, so that most masks do not reach 0 and 1; image of "
        "64 × 64, layer `features.4`",
        lambda: _score("torchcam", lambda channels: _enlarged(_unit(channels), corners=False)),
    ),
    Row(
        "Finer-CAM", *TORCHCAM, "`FinerCAM`, against that of grad-cam", 0.822,
        "two readings of one paper: a mean of the similar classes' logits, of which 0.6 is taken off, and a mean "
        "weighted by softmax, of which all is; `FinerScore` has both",
        _finer,
    ),
    Row(
        "Integrated gradients, trapezoid rule", *CAPTUM, '`IntegratedGradients(method="riemann_trapezoid")`', 0.2,
        f"n points are n − 1 steps, and its weights are 1/n, so that they add up to (n − 1)/n; here n = {STEPS}",
        _trapezoid,
    ),
    Row(
        "Guided backpropagation", *CAPTUM, "`GuidedBackprop`", 0.605,
        "only modules of the class `nn.ReLU` are seen; of a net that calls `F.relu`, a small one here, the plain "
        "gradient is returned",
        _guided,
    ),
    Row(
        "Guided backpropagation", *PYTORCH_GRAD_CAM, "`GuidedBackpropReLUModel`", 1.0,
        "the user's model is left with one new `nn.ReLU()` in place of all of its own; the size is the part of them "
        "that is replaced",
        _replaced,
    ),
)  # fmt: skip
"""In the order of the page."""


def page() -> str:
    """The whole page, by the sizes that are pinned."""
    lines = [
        "# Known disagreements",
        "",
        "Written by `uv run --group peers python docs/make_disagreements.py`.",
        "",
        "Where another library says something else under the same name, how far it is off ours, and why. The size is",
        "the largest difference as a part of the larger map's maximum; of Grad-CAM++, which has no unit, and of",
        "Finer-CAM each map is divided by its own maximum first. Each reason is proved: computed in the library's way,",
        f"ours are its map to {LEFT:g} of the maximum. Tests measure both anew and fail when a size changes, as it",
        "does once a library is mended.",
        "",
        'Bundled SqueezeNet 1.1 on the photo "coffee", class espresso, layer `features.12`, unless a reason says',
        "otherwise.",
        "",
        "| technique | library | what | size | reason |",
        "|---|---|---|---|---|",
    ]
    for row in ROWS:
        cells = (row.technique, f"{row.library} {row.version}", row.what, f"{row.size:.0%}", row.reason)
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "pytorch-grad-cam and torch-cam can be asked beside our backends. With the extras `pytorch-grad-cam` and",
        '`torchcam`, `compare(…, backends=("hooks", "pytorch_grad_cam", "torchcam"))` says which agree. `compare`',
        "leaves such [references](write-an-attributor.md#references) out unless they are named.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure every row and write the page, or say what has changed."""
    changed = []
    for row in ROWS:
        found = row.measure()
        print(f"{row.technique} · {row.library} · {row.what}: {found.size:.3g}, left {found.left:.1e}")
        changed.append(row.changed(found))
    if said := "\n".join(filter(None, changed)):
        raise SystemExit(said)
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
