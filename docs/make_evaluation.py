"""Makes the page with figures of the bundled network.

``uv run --extra demo --extra lightning python docs/make_evaluation.py``

Bundled SqueezeNet 1.1 on the sample photos of scikit-image, the predicted class of each; nothing is downloaded. With a
folder as argument it goes on where it was ended. The seconds are those of the machine that it runs on. Needs the extra
``lightning`` too.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from attribution import (
    RISE,
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
    ROAD,
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
from attribution.metrics.extremes import extremes_figure, of_run
from attribution.metrics.verdicts import grid
from attribution.runs import Examples

SANITY = 6
"""Photos of the second table, whose metrics make every map several times."""

LEFT_OUT = ("hires_cam", "input_x_gradient", "smooth_grad")
"""Techniques that the picture leaves out: their curves lie on those of others."""

HERE = Path(__file__).parent
PAGE = """# Evaluation of the bundled network

SqueezeNet 1.1 with its weights, the {count} sample photos ({names}), the
predicted class of each.
What the numbers say, and what they do not, is on the page [Which technique should I trust?](which-technique.md). This
page is made by `uv run --extra demo --extra lightning python docs/make_evaluation.py`. The seconds are those of the
machine it ran on, and are rough.

## Removal of cells

16 steps, at most 28 cells along an axis; the score is the probability. An interval is of 95 %.

![Mean curves with bands: occlusion and Grad-CAM keep the score longest](pictures/evaluation.jpg)

{removal}

ROAD imputes removed cells, at 10, 20, … 90 %. RISE has {masks} masks of 7 × 7 cells. *Forwards a photo* is work,
counted: multiply-adds, backward passes too, per those of one forward.

Grad-CAM − random, photo by photo, by SRG: {differences}.

## The best and the worst photos

By SRG, averaged over the baselines. Maps are drawn as they were ordered, each from its smallest value to its largest,
or symmetric about 0 where it has negative ones.

![Three photos of the highest and three of the lowest SRG of each technique, under its maps](pictures/extremes.jpg)

## Sanity and numerics

The first {sanity_count} of these photos. Infidelity of maps scaled to their best; the map's rank correlation after a
third, two thirds and all of the layers were shuffled; largest change under noise of 2 % of the range; differences as
parts of a map's maximum.

{sanity}
"""


MASKS = 500

SHOWN = 6
"""Techniques of the picture of the best and worst photos: the first ones by SRG."""


def bundled(count: int = len(DISTINCT)) -> tuple[nn.Module, Tensor, list[str]]:
    """The bundled network, so many of the sample photos as it takes them, and their names."""
    loaded, names = zoo.load("bundled:squeezenet1_1"), [*DISTINCT[:count]]
    return loaded.model, torch.cat([loaded.inputs(zoo.sample_photo(name)) for name in names]), names


def main() -> None:
    """Write the page and its pictures."""
    with TemporaryDirectory() as place:
        write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(place))


def write(out: Path) -> None:
    """The same, with what is computed in a folder."""
    model, inputs, names = bundled()

    def asked(name: str, techniques: list[Any], metrics: tuple[Any, ...], count: int) -> Table:
        return evaluate(
            model,
            inputs[:count],
            techniques,
            metrics=metrics,
            names=names[:count],
            title="SqueezeNet 1.1",
            batch_size=1,
            out=out / name,
        )

    fast = [GradCAM(), LayerCAM(), HiResCAM(), Saliency(), InputXGradient()]
    slow = [SmoothGrad(), IntegratedGradients(steps=16), Occlusion(), RISE(masks=MASKS)]
    removal = asked("removal", fast + slow, (SRG(), Insertion(), Deletion(), ROAD()), len(names))
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
    picture("evaluation.jpg", only(removal, [name for name in removal.maps if name not in LEFT_OUT]).figure(), out)
    first = [name for name in removal.ranking() if name in removal.contestants and name not in LEFT_OUT][:SHOWN]
    shown = of_run(out / "removal", Examples(inputs, names), zoo.load("bundled:squeezenet1_1").picture)
    picture("extremes.jpg", extremes_figure(only(removal, first), shown), out, part=0.55)
    page = PAGE.format(
        differences=", ".join(
            f"{variant} {removal.versus('grad_cam', 'random', 'srg', variant).difference}"
            for variant in removal.variants("srg")
        ),
        count=len(names),
        names=", ".join(names),
        masks=MASKS,
        removal=removal.text().strip(),
        sanity=grid(sanity),
        sanity_count=SANITY,
    )
    (HERE / "evaluation.md").write_text(page, encoding="utf-8")


def only(table: Table, maps: list[str]) -> Table:
    """Some maps of a table."""
    return Table(
        [row for row in table.rows if row.map in maps],
        [row for row in table.curves if row.map in maps],
        tuple(name for name in table.contestants if name in maps),
        table.better,
        title=table.title,
    )


def picture(name: str, figure: Any, out: Path, *, part: float = 0.8) -> None:
    """A figure, smaller, beside the other pictures."""
    plots.save(figure, out / "drawn.png")
    with Image.open(out / "drawn.png") as drawn:
        size = (int(drawn.width * part), int(drawn.height * part))
        smaller = drawn.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    smaller.save(HERE / "pictures" / name, quality=85)


if __name__ == "__main__":
    main()
