"""Pictures of the maps of a run, laid over what the model saw."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from attribution import plots
from attribution.result import Attribution
from attribution.runs import files, names
from attribution.runs.computing import Computed
from attribution.runs.explaining import chosen, restored
from attribution.runs.folder import RunFolder
from attribution.runs.items import Item

FOLDER = "overlays"

Picture = Callable[[Tensor], "np.ndarray[Any, Any]"]
"""From inputs (1, C, H, W) to what the model saw: (1, H, W, 3) in [0, 1]."""


def place(root: Path, item: int, name: str, technique: str, key: str) -> Path:
    """Where the picture of an item's map lies."""
    return root / FOLDER / f"{names.safe(item, name)}.{technique}.{names.safe(0, key)[9:] or 'map'}.png"


class Overlays:
    """Writes a PNG for each item, technique and layer before its shard is committed: the map of its first target.

    Heatmaps alone have pictures; other maps have no place in the image.

    Args:
        picture: What the model saw.
    """

    def __init__(self, picture: Picture) -> None:
        self._picture = picture

    def __call__(
        self, folder: RunFolder, record: Mapping[str, Any], items: Sequence[Item | Any], found: Computed
    ) -> None:
        """Write those of a shard.

        Raises:
            OutputError: The disk refuses.
        """
        files.folder(folder.root / FOLDER)
        for number, part in enumerate(found.parts):
            rows = {place[1]: slot for slot, place in found.places.items() if place[0] == number}
            for name, header in part["answers"].items():
                start = f"{number}/{name}/"
                held = {key.removeprefix(start): t.cpu() for key, t in found.tensors.items() if key.startswith(start)}
                answer = restored(header, held, folder.root)
                for row, slot in rows.items():
                    entry = record["items"][slot]
                    one = chosen(answer, [row], len(rows))
                    for key, (pixels,) in heatmaps(one, self._picture(items[slot].inputs[None])).items():
                        files.write(place(folder.root, entry["item"], entry["name"], name, key), png(pixels))


def heatmaps(answer: Attribution, pictures: "np.ndarray[Any, Any]") -> dict[str, list["np.ndarray[Any, Any]"]]:
    """Per layer, each image with the heatmap of its first target over it: (H, W, 3) of uint8.

    Args:
        answer: Of N images; maps that have no place in the image are left out.
        pictures: (N, H, W, 3) in [0, 1].
    """
    if answer.technique.kind != "heatmap":
        return {}
    maps, _ = answer.technique.drawn(answer.maps)
    return {
        key: [overlaid(each[0], picture, answer.technique.signed) for each, picture in zip(map_, pictures, strict=True)]
        for key, map_ in maps.items()
        if map_.ndim == 4
    }


def overlaid(map_: Tensor, picture: "np.ndarray[Any, Any]", signed: bool) -> "np.ndarray[Any, Any]":
    """(H, W, 3) of uint8: as in the technique's figure, without the scale."""
    lay = plots.signed_overlay if signed else plots.overlay
    pixels = lay(picture.astype(np.float64), map_.float())
    return (pixels * 255).round().clip(0, 255).astype(np.uint8)


def png(pixels: "np.ndarray[Any, Any]") -> bytes:
    """The bytes of a PNG, without metadata."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
