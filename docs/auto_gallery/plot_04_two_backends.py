"""
Two backends, one number
========================

Every technique is computed by at least two implementations that share no computation: hooks written by hand, and
Captum. ``backend=`` swaps them; ``compare`` asks both and holds their answers against each other.
"""

# %%

from attribution import GradCAM, Occlusion, compare, explain, zoo

loaded = zoo.load("bundled:squeezenet1_1")
inputs = loaded.inputs(zoo.sample_photo("coffee"))
espresso = loaded.index("espresso")

for backend in ("hooks", "captum"):
    answer = explain(loaded.model, inputs, GradCAM(), backend=backend, target=espresso)
    print(backend, f"{answer.map.max():.6f}")

# %%
# The table says how far the two are apart, as a part of the map's largest value, and how far rounding could take them.

found = compare(loaded.model, inputs, GradCAM(layers=("features.5", "features.12")), target=espresso)
print(found.table())

# %%
# The difference has a colour bar of its own: it is rounding, and without structure.

figure = found.figure(loaded.picture(inputs))

# %%
# Occlusion by hooks computes only what a window changes; Captum computes every covered photo whole. The numbers are the
# same.

found = compare(loaded.model, inputs, Occlusion(window=56, stride=28), target=espresso)
print(found.table())
for backend, answer in found.attributions.items():
    print(backend, {key: answer.provenance[key] for key in ("engine", "seconds") if key in answer.provenance})
figure = found.figure(loaded.picture(inputs))
