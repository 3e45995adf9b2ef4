"""Runs as data sets of FiftyOne: what the model saw, with a heatmap for each technique and layer."""

import re
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np
from torch import Tensor

from attribution.errors import InputError
from attribution.paths import named
from attribution.result import Attribution
from attribution.running.execution import first_line
from attribution.runs import files, names
from attribution.runs.computing import read
from attribution.runs.explaining import answers_of, chosen
from attribution.runs.items import Item, Items
from attribution.runs.opened import OpenRun
from attribution.runs.overlays import Picture, in_image, png
from attribution.runs.tables import utf8

FOLDER = "pictures"

_TAKEN = frozenset({"id", "filepath", "tags", "metadata", "created_at", "last_modified_at", "name", "item", "sha256"})


def library() -> Any:
    """FiftyOne.

    Raises:
        InputError: It is not installed, or cannot be imported.
    """
    try:
        return import_module("fiftyone")
    except ImportError as error:
        raise InputError(f"this needs FiftyOne ({error}); pip install fiftyone") from error
    except Exception as error:  # it starts its database, and raises what it likes
        raise InputError(f"FiftyOne cannot be used: {first_line(error)}") from error


def to_fiftyone(
    run: OpenRun, items: Items, picture: Picture, *, name: str | None = None, overwrite: bool = False
) -> Any:
    """A persistent data set of FiftyOne with a sample for each item that has heatmaps.

    The image of a sample is what the model saw, since heatmaps lie over that and not over a photo that the transform
    cropped; it is written below ``pictures/`` in the run. Each technique is a field with a ``fiftyone.Heatmap`` of its
    first target (of several layers, one each): the map as figures draw it, with its range, which is symmetric for
    techniques with signs, and the attributes ``target``, ``label`` and ``score``. ``name``, ``item`` and ``sha256``
    are those of the run.

    Args:
        run: Finished or not; what is done is exported.
        items: Those that the run went over.
        picture: From inputs (1, C, H, W) to what the model saw, (1, H, W, 3) in [0, 1].
        name: Of the data set; ``None``: that of the run's folder.
        overwrite: Replace a data set of that name.

    Returns:
        The ``fiftyone.Dataset``.

    Raises:
        InputError: FiftyOne is not installed or has no database, there is such a data set, the items are not those of
            the run, or it has no heatmaps of images.
        OutputError: A shard cannot be read, or a picture cannot be written.
    """
    fo = library()
    if list(items.names) != list(run.folder.names) or items.transform != run.folder.settings["transform"]:
        raise InputError(f"the items are not those of the run in {named(run.folder.root)}; give what it went over")
    title = run.folder.root.resolve().name if name is None else name
    known = _asked(lambda: fo.dataset_exists(title))
    if known and not overwrite:
        raise InputError(f"FiftyOne has a data set {title!r} already; give another name, or overwrite it")
    found = _asked(lambda: fo.Dataset(title, persistent=True, overwrite=overwrite))
    count = 0
    try:
        for samples in _samples(fo, run, items, picture):
            found.add_samples(samples, dynamic=True, progress=False)
            count += len(samples)
        if not count:
            raise InputError(f"the run in {named(run.folder.root)} has no heatmaps of images to export")
    except BaseException:
        found.delete()
        raise
    return found


def _samples(fo: Any, run: OpenRun, items: Items, picture: Picture) -> Iterator[list[Any]]:
    """Those of each shard that has some."""
    place = files.folder(run.folder.root / FOLDER)
    for number in run.folder.present():
        record, tensors = run.folder.read_shard(number)
        answers = answers_of(record, tensors, run.folder.path(number))
        samples = []
        for entry in record["items"]:
            fields: dict[str, Any] = {}
            for technique, (answer, count) in (answers[entry["part"]] if entry["part"] is not None else {}).items():
                fields |= _heatmaps(fo, technique, chosen(answer, [entry["row"]], count), entry)
            if not fields:
                continue
            item = read(items, entry["item"])
            if not isinstance(item, Item) or item.sha256 != entry["sha256"]:
                raise InputError(f"{named(entry['name'])} is not what it was when it was computed; put it back")
            path = place / f"{names.safe(entry['item'], entry['name'])}.png"
            files.write(path, png(_pixels(picture(item.inputs[None]))))
            about = {"name": utf8(entry["name"]), "item": entry["item"], "sha256": entry["sha256"]}
            samples.append(fo.Sample(filepath=str(path.resolve()), **about, **fields))
        if samples:
            yield samples


def _heatmaps(fo: Any, name: str, answer: Attribution, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of one item and technique."""
    technique = answer.technique
    lines = [row for row in entry["rows"] if row["technique"] == name][:1]
    told = {key: row[key] for row in lines for key in ("target", "label", "score") if row.get(key) is not None}
    maps = in_image(answer)
    return {
        _field(name if len(maps) < 2 else f"{name}_{layer}"): fo.Heatmap(
            map=map_[0, 0].float().numpy(), range=_range(map_[0, 0], technique.signed, technique.has_zero), **told
        )
        for layer, map_ in maps.items()
    }


def _range(map_: Tensor, signed: bool, zero: bool = True) -> list[float]:
    """No value lies outside, and where zero means something it has the colour of zero."""
    low, high = float(map_.min()), float(map_.max())
    most = max(abs(low), abs(high))
    if not (zero or signed) and low < high:
        return [low, high]
    if not most:
        return [0.0, 1.0]
    return [-most, most] if signed or low < 0 else [0.0, high]


def _field(name: str) -> str:
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"map_{plain}" if plain in _TAKEN or not plain[0].isalpha() else plain


def _pixels(seen: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    pixels: np.ndarray[Any, Any] = (np.asarray(seen[0]) * 255).round().clip(0, 255).astype(np.uint8)
    return pixels


def _asked(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # its database is another program
        raise InputError(f"FiftyOne cannot be used: {first_line(error)}") from error
