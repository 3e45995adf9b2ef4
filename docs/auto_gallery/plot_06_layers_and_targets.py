"""
Many layers, many targets
=========================

One forward and one batched backward answer three layers and three classes. Every panel has its own scale, which its
colour bar tells; ``scale="shared"`` gives all panels one.
"""

# %%

from attribution import GradCAM, LayerCAM, explain, explain_many, side_by_side, zoo

loaded = zoo.load("bundled:squeezenet1_1")
inputs = loaded.inputs(zoo.sample_photo("coffee"))
targets = [[loaded.index(name) for name in ("espresso", "cup", "eggnog")]]
layers = ("features.5", "features.8", "features.12")

answer = explain(loaded.model, inputs, GradCAM(layers=layers), target=targets)
figure = answer.figure(loaded.picture(inputs), loaded.labels, model=loaded.title, columns=4)

# %%
# Layer-CAM keeps its places in early layers, where Grad-CAM's channel weights mean little. ``fused`` joins its layers.

answer = explain(loaded.model, inputs, LayerCAM(layers=layers), target=targets)
figure = answer.fused().figure(loaded.picture(inputs), loaded.labels, model=loaded.title)

# %%
# Several techniques from one pass
# --------------------------------

found = explain_many(
    loaded.model,
    inputs,
    {"Grad-CAM": GradCAM(), "Layer-CAM": LayerCAM(layers=layers[1:])},
    target=loaded.index("espresso"),
)
figure = side_by_side(found, loaded.picture(inputs), loaded.labels, model=loaded.title)
