"""Makes the page with figures of the bundled network: ``uv run --extra demo python docs/make_evaluation.py``.

Bundled SqueezeNet 1.1 on the sample photos of scikit-image, the predicted class of each; nothing is downloaded. With a
folder as argument it goes on where it was ended. The seconds are those of the machine that it runs on.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image

from attribution import (
    GradCAM,
    HiResCAM,
    InputXGradient,
    IntegratedGradients,
    LayerCAM,
    Occlusion,
    Saliency,
    SmoothGrad,
    plots,
    zoo,
)
from attribution.images.samples import DISTINCT
from attribution.metrics import (
    SRG,
    BackendDifference,
    CompletenessGap,
    Deletion,
    Float64Difference,
    Infidelity,
    Insertion,
    MaxSensitivity,
    Randomisation,
    Table,
    evaluate,
)
from attribution.metrics.verdicts import grid

SANITY = 6
"""Photos of the second table, whose metrics make every map several times."""

LEFT_OUT = ("hires_cam", "input_x_gradient", "smooth_grad")
"""Techniques that the picture leaves out: their curves lie on those of others."""

HERE = Path(__file__).parent
PAGE = """# Evaluation of the bundled network

SqueezeNet 1.1 with its weights, the {count} sample photos ({names}), the
predicted class of each.
What the numbers say, and what they do not, is on the page [Which technique should I trust?](which-technique.md). This
page is made by `uv run --extra demo python docs/make_evaluation.py`. The seconds are those of the machine it ran on,
and are rough.

## Removal of cells

16 steps, at most 28 cells along an axis; the score is the probability. An interval is of 95 %.

![Mean curves with bands: occlusion and Grad-CAM keep the score longest](pictures/evaluation.jpg)

{removal}

Grad-CAM − random, photo by photo, by SRG: {differences}.

## Sanity and numerics

The first {sanity_count} of these photos. Infidelity of maps scaled to their best; the map's rank correlation after a
third, two thirds and all of the layers were shuffled; largest change under noise of 2 % of the range; differences as
parts of a map's maximum.

{sanity}
"""


def main() -> None:
    """Write the page and its picture."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    loaded = zoo.load("bundled:squeezenet1_1")
    inputs = torch.cat([loaded.inputs(zoo.sample_photo(name)) for name in DISTINCT])

    def asked(name: str, techniques: list, metrics: tuple, count: int) -> Table:  # type: ignore[type-arg]
        return evaluate(
            loaded.model,
            inputs[:count],
            techniques,
            metrics=metrics,
            names=DISTINCT[:count],
            title="SqueezeNet 1.1",
            batch_size=1,
            out=None if out is None else out / name,
        )

    fast = [GradCAM(), LayerCAM(), HiResCAM(), Saliency(), InputXGradient()]
    slow = [SmoothGrad(), IntegratedGradients(steps=16), Occlusion()]
    removal = asked("removal", fast + slow, (SRG(), Insertion(), Deletion()), len(DISTINCT))
    sanity = asked(
        "sanity",
        [GradCAM(), LayerCAM(), Saliency(), IntegratedGradients(steps=8)],
        (
            Randomisation(),
            Infidelity(samples=30),
            MaxSensitivity(samples=2),
            CompletenessGap(),
            BackendDifference(),
            Float64Difference(),
        ),
        SANITY,
    )
    kept = [name for name in removal.maps if name not in LEFT_OUT]
    shown = Table(
        [row for row in removal.rows if row.map in kept],
        [row for row in removal.curves if row.map in kept],
        tuple(name for name in removal.contestants if name in kept),
        removal.better,
        title=removal.title,
    )
    with TemporaryDirectory() as place:
        plots.save(shown.figure(), Path(place) / "curves.png")
        with Image.open(Path(place) / "curves.png") as drawn:
            smaller = drawn.convert("RGB").resize(
                (drawn.width * 4 // 5, drawn.height * 4 // 5), Image.Resampling.LANCZOS
            )
    smaller.save(HERE / "pictures" / "evaluation.jpg", quality=85)
    page = PAGE.format(
        differences=", ".join(
            f"{variant} {removal.versus('grad_cam', 'random', 'srg', variant).difference}"
            for variant in removal.variants("srg")
        ),
        count=len(DISTINCT),
        names=", ".join(DISTINCT),
        removal=removal.text().strip(),
        sanity=grid(sanity),
        sanity_count=SANITY,
    )
    (HERE / "evaluation.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
