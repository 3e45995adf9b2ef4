"""
Five conventions of one map
===========================

"Grad-CAM" of five libraries is five numbers: they differ in what is cut off, how the map is scaled, and how it is laid
over the photo. The raw map is the same in all of them.
"""

# %%

import torch
from torch.nn import functional

from attribution import GradCAM, explain, plots, zoo

loaded = zoo.load("bundled:squeezenet1_1")
inputs = loaded.inputs(zoo.sample_photo("coffee"))
cup = loaded.index("cup")

raw = explain(loaded.model, inputs, GradCAM(relu=False, upsample=False), target=cup).map
print(f"the raw map, {tuple(raw.shape[2:])}: {raw.min():.3f} to {raw.max():.3f} logits")

# %%
# Captum keeps the sign unless asked, and enlarges by nearest neighbours. pytorch-grad-cam cuts off what is negative,
# scales each map to 0…1 and enlarges bilinearly. torch-cam scales too, and leaves the map as small as the layer. MONAI
# scales and turns the result round: its map is 0 where the class is. This library keeps the unit of the score.

size = inputs.shape[2:]


def unit(map: torch.Tensor) -> torch.Tensor:
    return (map - map.amin()) / (map.amax() - map.amin())


bilinear = {"size": size, "mode": "bilinear", "align_corners": False}
conventions = {
    "here: logits": functional.interpolate(raw.relu(), **bilinear),
    "Captum: signed, nearest": functional.interpolate(raw, size=size, mode="nearest"),
    "pytorch-grad-cam: 0…1": functional.interpolate(unit(raw.relu()), **bilinear),
    "torch-cam: 0…1, small": functional.interpolate(unit(raw.relu()), size=size, mode="nearest"),
    "MONAI: 1…0": 1 - unit(functional.interpolate(raw.relu(), **bilinear)),
}
for name, map in conventions.items():
    print(f"{name:28} {map.min():7.3f} {map.max():7.3f}")
figure = plots.side_by_side_figure(
    {
        name: plots.Heatmaps({"input": map}, signed=bool(map.min() < 0), unit="logit" if map.min() < 0 else "")
        for name, map in conventions.items()
    },
    image=loaded.picture(inputs),
    title="Grad-CAM of 'cup' · features.12 · SqueezeNet 1.1",
)
