"""
Which technique to trust
========================

A map is an assertion: these places carry the answer. Removing places in the map's order tests it. Techniques are held
against three controls that know nothing of the network, and the differences have intervals.
"""

# %%

import torch

from attribution import GradCAM, InputXGradient, LayerCAM, Saliency, zoo
from attribution.images.samples import DISTINCT
from attribution.metrics import SRG, Deletion, Insertion, evaluate

loaded = zoo.load("bundled:squeezenet1_1")
photos = torch.cat([loaded.inputs(zoo.sample_photo(name)) for name in DISTINCT])
print(f"{len(photos)} photos: {', '.join(DISTINCT)}")

# %%
# SRG is the area between the curves of "least important first" and "most important first": 0 for a map that knows
# nothing.

techniques = {
    "Grad-CAM": GradCAM(),
    "Layer-CAM": LayerCAM(layers=("features.8",)),
    "saliency": Saliency(),
    "input x gradient": InputXGradient(),
}
table = evaluate(loaded.model, photos, techniques, metrics=(SRG(steps=8), Insertion(steps=8), Deletion(steps=8)))
print(table)

# %%
# The bands are 95 % intervals over photos. Where a technique's band meets that of a control, these photos cannot tell
# them apart.

figure = table.figure()
