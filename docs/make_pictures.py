"""Makes the pictures of the documentation: ``uv run --extra demo python docs/make_pictures.py``.

Bundled SqueezeNet 1.1 on scikit-image's photo "coffee" (CC0); nothing is downloaded.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from PIL import Image

from attribution import (
    RISE,
    AblationCAM,
    Activations,
    Deconvolution,
    EigenCAM,
    ElementWiseCAM,
    FeatureAblation,
    FilterVisualization,
    FinerScore,
    GradCAM,
    GradCAMPlusPlus,
    GradientSHAP,
    GuidedBackprop,
    GuidedGradCAM,
    HiResCAM,
    InputXGradient,
    IntegratedGradients,
    LayerCAM,
    Occlusion,
    Saliency,
    ScoreCAM,
    ShapleySampling,
    SmoothGrad,
    Technique,
    XGradCAM,
    compare,
    explain,
    plots,
    zoo,
)
from attribution.cli.atlas import sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = Path(__file__).parent / "pictures"
CHANNELS = (0, 4, 8, 12)
LARGEST = 195_000
"""Bytes of a photo; what is noisy is stored with less quality."""

GRADIENTS: tuple[Technique, ...] = (
    Saliency(),
    InputXGradient(),
    IntegratedGradients(),
    GradientSHAP(samples=50),
    SmoothGrad(samples=50),
    SmoothGrad(samples=50, statistic="squared"),
    SmoothGrad(samples=50, statistic="variance"),
    GuidedBackprop(),
    Deconvolution(),
    GuidedGradCAM(),
)
ALONE: dict[str, Technique] = {
    "grad_cam.jpg": GradCAM(),
    "occlusion.jpg": Occlusion(),
    "saliency.jpg": Saliency(),
    "input_x_gradient.jpg": InputXGradient(),
    "integrated_gradients.jpg": IntegratedGradients(),
    "gradient_shap.jpg": GradientSHAP(samples=100),
    "guided_backprop.jpg": GuidedBackprop(),
    "deconvolution.jpg": Deconvolution(),
    "guided_grad_cam.jpg": GuidedGradCAM(),
    "ablation_cam.jpg": AblationCAM(),
    "score_cam.jpg": ScoreCAM(),
    "rise.jpg": RISE(masks=500),
    "feature_ablation.jpg": FeatureAblation(segments="slic"),
    "shapley.jpg": ShapleySampling(segments="slic", permutations=5),
}


def main() -> None:
    """Write every picture that the pages show."""
    loaded = zoo.load("bundled:squeezenet1_1")
    model, inputs = loaded.model, loaded.inputs(zoo.sample_photo("coffee"))
    espresso, seen = loaded.index("espresso"), loaded.picture(inputs)

    for file, technique in ALONE.items():
        answer = explain(model, inputs, technique, target=espresso)
        write(answer.figure(seen, loaded.labels, model=loaded.title), file)
    write(cams(loaded, inputs, "features.12"), "cams.jpg", widest=1400)
    write(cams(loaded, inputs, "features.7"), "cams_early.jpg", widest=1400)
    write(gradients(loaded, inputs), "gradients.jpg", widest=1200)
    write(explain(model, inputs, Activations()).figure(model=loaded.title), "activations.png")
    for name, layer in (("early", "features.3.expand3x3"), ("middle", "features.6.squeeze")):
        filters = FilterVisualization(layer=layer, channels=CHANNELS, spread=loaded.spread)
        write(explain(model, None, filters).figure(model=loaded.title), f"filters_{name}.jpg")
    whole = FilterVisualization(layer="features.6.squeeze", channels=range(32), size=64, spread=loaded.spread)
    page = sheet(explain(model, None, whole), f"{whole.words} · {whole.layer} · {loaded.title}")
    write(page, "filters_atlas.jpg")
    plain = FilterVisualization.notebook(layer="features.6.squeeze", channels=CHANNELS)
    write(explain(model, None, plain).figure(model=loaded.title), "filters_notebook.png")

    names = ("hooks", "captum")
    both = compare(model, inputs, Occlusion(), backends=names, target=espresso).attributions
    title = f"Occlusion of 'espresso' by two backends · {loaded.title}"
    figure = plots.difference_figure(*(both[name].maps for name in names), names, image=seen[0], title=title)
    write(figure, "difference.jpg")


def gradients(loaded: zoo.LoadedModel, inputs: torch.Tensor) -> "Figure":
    """Every technique of the family, as its own figure draws it, each by its own largest value."""
    maps, titles = [], []
    for technique in GRADIENTS:
        result = explain(loaded.model, inputs, technique, target=loaded.index("espresso"))
        drawn, _ = result.technique.drawn(result.maps)
        (map_,) = drawn.values()
        maps.append(map_ / map_.abs().amax(dim=(2, 3), keepdim=True))
        statistic = getattr(technique, "statistic", "mean")
        titles.append(technique.words if statistic == "mean" else f"{technique.words}, {statistic}")
    return relative(loaded, inputs, maps, titles, "Gradients of 'espresso'", signed=True, columns=4)


def relative(
    loaded: zoo.LoadedModel,
    inputs: torch.Tensor,
    maps: list[torch.Tensor],
    titles: list[str],
    family: str,
    *,
    signed: bool,
    columns: int,
) -> "Figure":
    """Maps of a family beside their photo, scaled by their largest values already."""
    title = f"{family} · {loaded.title} · each map by its own largest value"
    stacked, picture = {"input": torch.cat(maps, dim=1)}, loaded.picture(inputs)
    return plots.heatmap_figure(stacked, image=picture, titles=titles, title=title, signed=signed, columns=columns)


def cams(loaded: zoo.LoadedModel, inputs: torch.Tensor, layer: str) -> "Figure":
    """Every CAM of one layer, Finer-CAM, and a mean over layers, each by its own largest value."""
    model, espresso, layers = loaded.model, loaded.index("espresso"), (layer,)
    found = {
        cls.title: explain(model, inputs, cls(layers=layers), target=espresso if cls.needs_target else None).map
        for cls in (GradCAM, GradCAMPlusPlus, XGradCAM, HiResCAM, ElementWiseCAM, LayerCAM, EigenCAM)
    }
    found["Grad-CAM, Finer-CAM's score"] = explain(
        model, inputs, GradCAM(layers=layers), target=FinerScore(espresso)
    ).map
    several = LayerCAM(layers=("features.5", "features.8", layer))
    found["Layer-CAM, mean of three layers"] = explain(model, inputs, several, target=espresso).fused().map
    maps = [map_ / map_.amax(dim=(2, 3), keepdim=True) for map_ in found.values()]
    return relative(loaded, inputs, maps, list(found), f"CAMs of 'espresso' · {layer}", signed=False, columns=5)


def write(figure: "Figure", name: str, *, widest: int = 4000) -> None:
    """Save a figure by the project's own function, then smaller: photos as JPEG, small squares with a palette."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "figure.png")
        plots.save(figure, path)
        with Image.open(path) as image:
            colours = image.convert("RGB")
    colours.thumbnail((widest, widest))
    if name.endswith(".jpg"):
        for quality in range(85, 40, -5):
            colours.save(FOLDER / name, quality=quality, subsampling=0, optimize=True)
            if (FOLDER / name).stat().st_size < LARGEST:
                break
    else:
        colours.quantize(256, dither=Image.Dither.NONE).save(FOLDER / name, optimize=True)


if __name__ == "__main__":
    main()
