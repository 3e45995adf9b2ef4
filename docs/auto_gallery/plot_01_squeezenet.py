"""
One photo, from end to end: SqueezeNet
=======================================

The whole story of one photo: what the network answers, what its blocks see, what excites its filters, where the answer
comes from, and which parts of the photo it needs.
"""

# %%
# The network and its photo
# -------------------------
# The weights lie in an installed package. The transform is the one that the weights were trained with.

import torch

from attribution import Activations, FilterVisualization, GradCAM, Occlusion, explain, zoo

loaded = zoo.load("bundled:squeezenet1_1")
photo = zoo.sample_photo("coffee")
inputs = loaded.inputs(photo)
seen = loaded.picture(inputs)
with torch.no_grad():
    logits = loaded.model(inputs)
for label, index, probability in loaded.top(logits)[0]:
    print(f"{probability:6.1%}  {label} ({index})")

# %%
# What every block sees
# ---------------------
# ``Activations()`` takes the layers at which the resolution falls. Each panel is a channel. Early channels follow edges
# and colours, late ones answer to whole parts of the cup.

figure = explain(loaded.model, inputs, Activations()).figure(model=loaded.title)

# %%
# What excites a filter
# ---------------------
# An image is changed from noise until one channel answers as strongly as it can.

early = FilterVisualization(layer="features.3.expand3x3", channels=(0, 4, 8, 12), spread=loaded.spread)
figure = explain(loaded.model, None, early).figure(model=loaded.title)

# %%
# A layer further on answers to patterns of patterns.

middle = FilterVisualization(layer="features.7.expand3x3", channels=(0, 4, 8, 12), spread=loaded.spread)
figure = explain(loaded.model, None, middle).figure(model=loaded.title)

# %%
# Where the answer comes from
# ---------------------------
# Grad-CAM weights the channels of the last layer with places by their gradients. The map has the unit of the score.

figure = explain(loaded.model, inputs, GradCAM(), target=loaded.index("espresso")).figure(
    seen, loaded.labels, model=loaded.title
)

# %%
# Which parts it needs
# --------------------
# A grey window slides over the photo. The map tells by how much the probability falls where it lies.

answer = explain(loaded.model, inputs, Occlusion(), target=loaded.index("espresso"))
print(f"the largest fall is {answer.map.max():.3f} of {answer.scores.item():.3f}")
figure = answer.figure(seen, loaded.labels, model=loaded.title)
