"""Writes ``docs/disagreements.md``: ``uv run --group peers python docs/make_disagreements.py``.

Every size is measured anew, by ``disagreement_measures.py``, and nothing is written where one has changed.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import disagreement_measures as measures
from disagreement_measures import STEPS, Measured, enlarged, unit

PAGE = Path(__file__).parent / "disagreements.md"
WITHIN = 0.1
"""A size that has changed by a larger part of itself is another one."""

LEFT = 1e-4
"""What may be left where ours are computed in the library's way."""


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


PYTORCH_GRAD_CAM, TORCHCAM, CAPTUM = ("grad-cam", "1.5.7"), ("torchcam", "0.5.0"), ("captum", "0.9.0")
_OVERWRITTEN = "the next module works in place, and its hook keeps no copy: the activation is the overwritten one"

ROWS: tuple[Row, ...] = (
    Row(
        "Grad-CAM++", *TORCHCAM, "`GradCAMpp`", 0.470,
        "`alpha[mask].div_(…)` divides a copy, so that α stays g²",
        lambda: measures.plus_plus("torchcam", lambda g, total: g**2),
    ),
    Row(
        "Grad-CAM++", *PYTORCH_GRAD_CAM, "`GradCAMPlusPlus`", 0.206,
        "10⁻⁶ is added to the denominator, which is of the size of g²",
        lambda: measures.plus_plus("pytorch_grad_cam", lambda g, total: g**2 / (2 * g**2 + total * g**3 + 1e-6)),
    ),
    Row(
        "Grad-CAM before an in-place ReLU", *TORCHCAM, "`GradCAM`", 1.55,
        f"{_OVERWRITTEN}, and so is the tensor of which it takes the gradient; it explains the next module",
        lambda: measures.in_place("torchcam"),
    ),
    Row(
        "Grad-CAM before an in-place ReLU", *PYTORCH_GRAD_CAM, "`GradCAM`", 1.06,
        f"{_OVERWRITTEN}, and the gradient is that of the layer's own",
        lambda: measures.in_place("pytorch_grad_cam"),
    ),
    Row(
        "Eigen-CAM", *PYTORCH_GRAD_CAM, "`EigenCAM`", 0.25,
        "LAPACK's sign is kept, so that after the ReLU a map may be the complement; the size is the part of four "
        "layers where it is, on this machine",
        measures.eigen, portable=False,
    ),
    Row(
        "Score-CAM", *PYTORCH_GRAD_CAM, "`ScoreCAM`", 0.548,
        "channels are enlarged with aligned corners; image of 64 × 64, layer `features.4`",
        lambda: measures.score("pytorch_grad_cam", lambda channels: unit(enlarged(channels, corners=True))),
    ),
    Row(
        "Score-CAM", *TORCHCAM, "`ScoreCAM`", 0.286,
        "channels are scaled to 0…1 first and enlarged then, so that most masks do not reach 0 and 1; image of "
        "64 × 64, layer `features.4`",
        lambda: measures.score("torchcam", lambda channels: enlarged(unit(channels), corners=False)),
    ),
    Row(
        "Finer-CAM", *TORCHCAM, "`FinerCAM`, against that of grad-cam", 0.822,
        "two readings of one paper: a mean of the similar classes' logits, of which 0.6 is taken off, and a mean "
        "weighted by softmax, of which all is; `FinerScore` has both",
        measures.finer,
    ),
    Row(
        "Integrated gradients, trapezoid rule", *CAPTUM, '`IntegratedGradients(method="riemann_trapezoid")`', 0.2,
        f"n points are n − 1 steps, and its weights are 1/n, so that they add up to (n − 1)/n; here n = {STEPS}",
        measures.trapezoid,
    ),
    Row(
        "Guided backpropagation", *CAPTUM, "`GuidedBackprop`", 0.605,
        "only modules of the class `nn.ReLU` are seen; of a net that calls `F.relu`, a small one here, the plain "
        "gradient is returned",
        measures.guided,
    ),
    Row(
        "Guided backpropagation", *PYTORCH_GRAD_CAM, "`GuidedBackpropReLUModel`", 1.0,
        "the user's model is left with one new `nn.ReLU()` in place of all of its own; the size is the part of them "
        "that is replaced",
        measures.replaced,
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
