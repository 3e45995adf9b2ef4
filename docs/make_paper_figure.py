"""Makes the figure of the page "A figure for a paper".

``uv run --extra demo --group peers python docs/make_paper_figure.py``

Bundled SqueezeNet 1.1 on scikit-image's photo "coffee" (CC0), class espresso, layer ``features.12``, at 300 dots per
inch: Grad-CAM of three libraries, each drawn by its own function. Nothing is downloaded.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from captum.attr import LayerAttribution, LayerGradCam
from captum.attr._utils.visualization import visualize_image_attr
from matplotlib.colors import Normalize
from PIL import Image
from pytorch_grad_cam import GradCAM as TheirGradCAM
from pytorch_grad_cam.utils.image import show_cam_on_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from attribution import GradCAM, explain, plots, zoo
from attribution.plots.sheet import empty

FILE = Path(__file__).parent / "pictures/paper_figure.png"
LAYER, DPI = "features.12", 300
WIDTH, SIDE, LETTERS = 6.9, 1.7, 7.0
"""Inches of the figure, as wide as two columns of a journal, and of a panel; points of its letters."""

Drawn = Callable[[Any, Any], object]
Column = tuple[str, str, Drawn, Drawn]
"""A library, the unit of its map, and what draws the map, and the map over the photo, into a figure and its axes."""


def main() -> None:
    """Write the figure: a column for each library, its map above and its overlay below."""
    loaded = zoo.load("bundled:squeezenet1_1")
    inputs, target = loaded.inputs(zoo.sample_photo("coffee")), loaded.index("espresso")
    photo = loaded.picture(inputs)[0]

    def network() -> tuple[Any, Any]:
        """A copy for a library that may change it, and the layer."""
        model = copy.deepcopy(loaded.model)
        return model, model.get_submodule(LAYER)

    ours = explain(loaded.model, inputs, GradCAM(layers=(LAYER,)), target=target).map[0, 0]
    model, layer = network()
    with TheirGradCAM(model=model, target_layers=[layer]) as method:
        theirs = method(input_tensor=inputs, targets=[ClassifierOutputTarget(target)])[0]
    small = LayerGradCam(*network()).attribute(inputs, target=target)
    captums = LayerAttribution.interpolate(small, photo.shape[:2])[0].detach().permute(1, 2, 0).numpy()

    def by_captum(method: str) -> Drawn:
        return lambda figure, axes: visualize_image_attr(
            captums, photo, method, sign="all", plt_fig_axis=(figure, axes), use_pyplot=False
        )

    columns: list[Column] = [
        (
            "torch-attribution",
            "logit",
            lambda _, axes: axes.imshow(ours, cmap="inferno", norm=Normalize(0.0, float(ours.max()))),
            lambda _, axes: axes.imshow(plots.overlay(photo, ours)),
        ),
        (
            "pytorch-grad-cam",
            "part of the largest value",
            lambda _, axes: axes.imshow(theirs, cmap="jet", norm=Normalize(0.0, 1.0)),
            lambda _, axes: axes.imshow(show_cam_on_image(photo.astype(np.float32), theirs, use_rgb=True)),
        ),
        ("Captum", "part of the largest value but for 2 %", by_captum("heat_map"), by_captum("blended_heat_map")),
    ]
    plots.save(drawn(columns), FILE, dpi=DPI)
    with Image.open(FILE) as image:
        flat = image.convert("RGB")
    flat.save(FILE, dpi=(DPI, DPI), optimize=True)


def drawn(columns: list[Column]) -> Any:
    """All columns on one figure."""
    height = 2 * (SIDE + 0.1) + 0.25
    figure = empty(WIDTH, height, dpi=DPI)
    for number, (name, unit, map_, overlay) in enumerate(columns):
        left = (0.05 + number * WIDTH / len(columns)) / WIDTH
        above, below = (
            figure.add_axes((left, bottom / height, SIDE / WIDTH, SIDE / height)) for bottom in (SIDE + 0.15, 0.05)
        )
        map_(figure, above)
        overlay(figure, below)
        for axes in (above, below):
            axes.set_axis_off()
            for image in axes.images:
                image.set_interpolation("nearest")  # what the libraries gave, and a smaller file
        above.set_title(name, size=LETTERS + 1, pad=3)
        low, high = above.images[-1].get_clim()
        ticks = [low, (low + high) / 2, high]
        bar = figure.colorbar(above.images[-1], cax=above.inset_axes((1.03, 0.0, 0.05, 1.0)), ticks=ticks)
        bar.set_ticklabels([f"{tick:.3g}" for tick in ticks])
        bar.ax.tick_params(labelsize=LETTERS - 1, length=2, pad=1)
        bar.set_label(unit, size=LETTERS - 1, labelpad=1)
    return figure


if __name__ == "__main__":
    main()
