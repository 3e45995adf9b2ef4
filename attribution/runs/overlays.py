"""Pictures of the maps of a run, laid over what the model saw."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from attribution import plots
from attribution.result import Attribution
from attribution.runs import files, names
from attribution.runs.computing import Computed, read
from attribution.runs.explaining import chosen, restored
from attribution.runs.folder import RunFolder
from attribution.runs.items import Item, Items

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
        for answer, rows in _answers(record, found.tensors, folder.root):
            for row, entry in rows.items():
                self._draw(folder, answer, row, entry, items[entry["item"] - record["items"][0]["item"]].inputs)

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
            for answer, rows in _answers(record, tensors, folder.root):
                for row, entry in rows.items():
                    places = [_place(folder.root, entry, answer[0], key) for key in _layers(answer[1])]
                    if all(files.regular(each) for each in places):
                        continue
                    item = read(items, entry["item"])
                    if isinstance(item, Item) and item.sha256 == entry["sha256"]:
                        drawn += self._draw(folder, answer, row, entry, item.inputs)
        return drawn

    def _draw(
        self, folder: RunFolder, answer: tuple[str, Attribution], row: int, entry: Mapping[str, Any], inputs: Tensor
    ) -> int:
        """The pictures of one item and technique."""
        name, whole = answer
        files.folder(folder.root / FOLDER)
        drawn = heatmaps(chosen(whole, [row], _count(whole)), self._picture(inputs[None]))
        for key, (pixels,) in drawn.items():
            files.write(_place(folder.root, entry, name, key), png(pixels))
        return len(drawn)


def _answers(
    record: Mapping[str, Any], tensors: Mapping[str, Tensor], root: Path
) -> Iterator[tuple[tuple[str, Attribution], dict[int, Mapping[str, Any]]]]:
    """Each technique's answer in each part of a shard, and the entries of its rows."""
    for number, part in enumerate(record["parts"]):
        rows = {entry["row"]: entry for entry in record["items"] if entry["part"] == number}
        for name, header in part["answers"].items():
            start = f"{number}/{name}/"
            held = {key.removeprefix(start): t.cpu() for key, t in tensors.items() if key.startswith(start)}
            yield (name, restored(header, held, root)), rows


def _place(root: Path, entry: Mapping[str, Any], technique: str, key: str) -> Path:
    return place(root, entry["item"], entry["name"], technique, key)


def _count(answer: Attribution) -> int:
    return len(next(iter(answer.maps.values())))


def _layers(answer: Attribution) -> dict[str, Tensor]:
    """The maps that have a place in an image."""
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
    signed = answer.technique.signed
    return {
        key: [overlaid(each[0], picture, signed) for each, picture in zip(map_, pictures, strict=True)]
        for key, map_ in _layers(answer).items()
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
