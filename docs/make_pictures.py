"""Makes the pictures of the documentation: ``uv run --extra demo python docs/make_pictures.py``.

Bundled SqueezeNet 1.1 on scikit-image's photo "coffee" (CC0); nothing is downloaded.
"""

from collections.abc import Mapping
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
    KernelSHAP,
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
GRADIENTS: dict[str, Technique] = {
    "Saliency": Saliency(),
    "InputXGradient": InputXGradient(),
    "IntegratedGradients": IntegratedGradients(),
    "GradientSHAP": GradientSHAP(samples=50),
    "SmoothGrad": SmoothGrad(samples=50),
    "SmoothGrad, squared": SmoothGrad(samples=50, statistic="squared"),
    "SmoothGrad, variance": SmoothGrad(samples=50, statistic="variance"),
    "GuidedBackprop": GuidedBackprop(),
    "Deconvolution": Deconvolution(),
    "GuidedGradCAM": GuidedGradCAM(),
}
FORWARDS: dict[str, Technique] = {
    "AblationCAM": AblationCAM(),
    "ScoreCAM": ScoreCAM(),
    "Occlusion": Occlusion(),
    "FeatureAblation, slic": FeatureAblation(segments="slic"),
    "ShapleySampling, slic": ShapleySampling(segments="slic", permutations=5),
    "KernelSHAP, slic": KernelSHAP(segments="slic", samples=200),
    "RISE": RISE(masks=500),
}


def main() -> None:
    """Write every picture that the pages show."""
    loaded = zoo.load("bundled:squeezenet1_1")
    model, inputs = loaded.model, loaded.inputs(zoo.sample_photo("coffee"))
    espresso, seen = loaded.index("espresso"), loaded.picture(inputs)

    write(explain(model, inputs, GradCAM(), target=espresso).figure(seen, loaded.labels), "grad_cam.jpg")
    write(cams(loaded, inputs, "features.12"), "cams.jpg", widest=1400)
    write(cams(loaded, inputs, "features.7"), "cams_early.jpg", widest=1400)
    write(explain(model, inputs, Occlusion(), target=espresso).figure(seen, loaded.labels), "occlusion.jpg")
    write(explain(model, inputs, Saliency(), target=espresso).figure(seen, loaded.labels), "saliency.jpg")
    write(explain(model, inputs, InputXGradient(), target=espresso).figure(seen, loaded.labels), "input_x_gradient.jpg")
    path = explain(model, inputs, IntegratedGradients(), target=espresso)
    write(path.figure(seen, loaded.labels), "integrated_gradients.jpg")
    for asked, name in (
        (GradientSHAP(samples=100), "gradient_shap.jpg"),
        (GuidedBackprop(), "guided_backprop.jpg"),
        (Deconvolution(), "deconvolution.jpg"),
        (GuidedGradCAM(), "guided_grad_cam.jpg"),
    ):
        write(explain(model, inputs, asked, target=espresso).figure(seen, loaded.labels), name)
    write(family(loaded, inputs, GRADIENTS), "gradients.jpg", widest=1400)
    write(explain(model, inputs, Activations()).figure(), "activations.png")
    for name, layer in (("early", "features.3.expand3x3"), ("middle", "features.6.squeeze")):
        filters = FilterVisualization(layer=layer, channels=CHANNELS, spread=loaded.spread)
        write(explain(model, None, filters).figure(), f"filters_{name}.jpg")
    whole = FilterVisualization(layer="features.6.squeeze", channels=range(32), size=64, spread=loaded.spread)
    page = sheet(explain(model, None, whole), "bundled:squeezenet1_1 · features.6.squeeze · hooks")
    write(page, "filters_atlas.jpg")
    plain = FilterVisualization.notebook(layer="features.6.squeeze", channels=CHANNELS)
    write(explain(model, None, plain).figure(), "filters_notebook.png")

    both = compare(model, inputs, Occlusion(), backends=("hooks", "captum"), target=espresso).attributions
    figure = plots.difference_figure(both["hooks"].maps, both["captum"].maps, ("hooks", "captum"), image=seen[0])
    write(figure, "difference.jpg")
    forwards(loaded, inputs)


def forwards(loaded: zoo.LoadedModel, inputs: torch.Tensor) -> None:
    """What needs no gradient: masks, channels, superpixels."""
    model, espresso, seen = loaded.model, loaded.index("espresso"), loaded.picture(inputs)
    files = {"ablation_cam.jpg": "AblationCAM", "score_cam.jpg": "ScoreCAM", "rise.jpg": "RISE"}
    files |= {"feature_ablation.jpg": "FeatureAblation, slic", "shapley.jpg": "ShapleySampling, slic"}
    for file, name in files.items():
        write(explain(model, inputs, FORWARDS[name], target=espresso).figure(seen, loaded.labels), file)


def family(loaded: zoo.LoadedModel, inputs: torch.Tensor, members: Mapping[str, Technique]) -> "Figure":
    """Every technique of a family, as its own figure draws it, each by its own largest value."""
    maps = []
    for technique in members.values():
        result = explain(loaded.model, inputs, technique, target=loaded.index("espresso"))
        drawn, _ = result.technique.drawn(result.maps)
        (map_,) = drawn.values()
        maps.append(map_ / map_.abs().amax(dim=(2, 3), keepdim=True))
    picture = loaded.picture(inputs)
    return plots.heatmap_figure({"input": torch.cat(maps, dim=1)}, image=picture, titles=list(members), signed=True)


def cams(loaded: zoo.LoadedModel, inputs: torch.Tensor, layer: str) -> "Figure":
    """Every CAM of one layer, Finer-CAM, and a mean over layers, each by its own largest value."""
    model, espresso, layers = loaded.model, loaded.index("espresso"), (layer,)
    found = {
        cls.__name__: explain(model, inputs, cls(layers=layers), target=espresso if cls.needs_target else None).map
        for cls in (GradCAM, GradCAMPlusPlus, XGradCAM, HiResCAM, ElementWiseCAM, LayerCAM, EigenCAM)
    }
    found["GradCAM, FinerScore"] = explain(model, inputs, GradCAM(layers=layers), target=FinerScore(espresso)).map
    several = LayerCAM(layers=("features.5", "features.8", layer))
    found["LayerCAM, fused"] = explain(model, inputs, several, target=espresso).fused().map
    maps = torch.cat([map_ / map_.amax(dim=(2, 3), keepdim=True) for map_ in found.values()], dim=1)
    titles = list(found)
    return plots.heatmap_figure({"input": maps}, image=loaded.picture(inputs), titles=titles, title=layer)


def write(figure: "Figure", name: str, *, widest: int = 4000) -> None:
    """Save a figure by the project's own function, then smaller: photos as JPEG, small squares with a palette."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "figure.png")
        plots.save(figure, path)
        with Image.open(path) as image:
            colours = image.convert("RGB")
    colours.thumbnail((widest, widest))
    if name.endswith(".jpg"):
        colours.save(FOLDER / name, quality=85, subsampling=0, optimize=True)
    else:
        colours.quantize(256, dither=Image.Dither.NONE).save(FOLDER / name, optimize=True)


if __name__ == "__main__":
    main()
