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
from attribution.runs.computing import Computed, read
from attribution.runs.explaining import answers_of, chosen
from attribution.runs.folder import RunFolder
from attribution.runs.items import Item, Items

FOLDER = "overlays"

Picture = Callable[[Tensor], "np.ndarray[Any, Any]"]
"""From inputs (1, C, H, W) to what the model saw: (1, H, W, 3) in [0, 1]."""


def place(root: Path, entry: Mapping[str, Any], technique: str, key: str) -> Path:
    """Where the picture of an item's map lies; ``entry``: of the item in the record of its shard."""
    named = names.safe(entry["item"], entry["name"])
    return root / FOLDER / f"{named}.{technique}.{names.safe(0, key)[9:] or 'map'}.png"


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
        answers = answers_of(record, {name: tensor.cpu() for name, tensor in found.tensors.items()}, folder.root)
        for slot, entry in enumerate(record["items"]):
            if entry["part"] is not None:
                for name, answer in answers[entry["part"]].items():
                    self._draw(folder, name, answer, entry, items[slot].inputs)

    def complete(self, folder: RunFolder, items: Items) -> int:
        """Write those that are missing of the shards that are done; how many.

        Args:
            folder: The run.
            items: Its items, which are read again where a picture is missing.

        Raises:
            OutputError: The disk refuses, or a shard cannot be read.
        """
        drawn = 0
        for number in folder.present():
            record, tensors = folder.read_shard(number)
            answers = answers_of(record, tensors, folder.root)
            layers = [{name: [*in_image(each[0])] for name, each in part.items()} for part in answers]
            for entry in (entry for entry in record["items"] if entry["part"] is not None):
                parts = answers[entry["part"]]
                lacking = {
                    name: parts[name]
                    for name, keys in layers[entry["part"]].items()
                    if not all(files.regular(place(folder.root, entry, name, key)) for key in keys)
                }
                item = read(items, entry["item"]) if lacking else None
                if isinstance(item, Item) and item.sha256 == entry["sha256"]:
                    drawn += sum(self._draw(folder, *each, entry, item.inputs) for each in lacking.items())
        return drawn

    def _draw(
        self,
        folder: RunFolder,
        name: str,
        answer: tuple[Attribution, int],
        entry: Mapping[str, Any],
        inputs: Tensor,
    ) -> int:
        """The pictures of one item and technique."""
        files.folder(folder.root / FOLDER)
        drawn = heatmaps(chosen(answer[0], [entry["row"]], answer[1]), self._picture(inputs[None]))
        for key, (pixels,) in drawn.items():
            files.write(place(folder.root, entry, name, key), png(pixels))
        return len(drawn)


def in_image(answer: Attribution) -> dict[str, Tensor]:
    """The maps that have a place in an image, as a figure shows them: (N, T, H, W) by layer."""
    if answer.technique.kind != "heatmap":
        return {}
    maps, _ = answer.technique.drawn(answer.maps)
    return {key: map_ for key, map_ in maps.items() if map_.ndim == 4}


def heatmaps(answer: Attribution, pictures: "np.ndarray[Any, Any]") -> dict[str, list["np.ndarray[Any, Any]"]]:
    """Per layer, each image with the heatmap of its first target over it: (H, W, 3) of uint8.

    Args:
        answer: Of N images; maps that have no place in the image are left out.
        pictures: (N, H, W, 3) in [0, 1].
    """
    signed, zero = answer.technique.signed, answer.technique.has_zero
    return {
        key: [overlaid(each[0], picture, signed, zero) for each, picture in zip(map_, pictures, strict=True)]
        for key, map_ in in_image(answer).items()
    }


def overlaid(map_: Tensor, picture: "np.ndarray[Any, Any]", signed: bool, zero: bool) -> "np.ndarray[Any, Any]":
    """(H, W, 3) of uint8: as in the technique's figure, without the scale."""
    below, values = picture.astype(np.float64), map_.float()
    pixels = plots.signed_overlay(below, values) if signed else plots.overlay(below, values, zero=zero)
    return (pixels * 255).round().clip(0, 255).astype(np.uint8)


def png(pixels: "np.ndarray[Any, Any]") -> bytes:
    """The bytes of a PNG, without metadata."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
