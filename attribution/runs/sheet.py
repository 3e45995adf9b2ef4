"""A page of the maps of a run."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attribution import plots
from attribution.errors import InputError, nearest
from attribution.paths import named
from attribution.result import Attribution
from attribution.runs import overlays
from attribution.runs.opened import Entry, OpenRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 40
_SIDE = 224
_TITLE = 28


def sheet(run: OpenRun, *, technique: str | None = None, most: int = MOST) -> "Figure":
    """Heatmaps of a run on one page, item by item: over the image where ``--overlay`` was given, else alone.

    Args:
        run: Finished or not.
        technique: The only one to draw; ``None``: all.
        most: Maps on the page; of more items some are drawn, evenly over the run.

    Raises:
        InputError: There is no such technique, or nothing to draw.
    """
    known = list(run.folder.settings["work"]["techniques"])
    if technique is not None and technique not in known:
        raise InputError(
            f"the run has no technique {technique!r}{nearest(technique, known)}; it has {', '.join(known)}"
        )
    wanted = known if technique is None else [technique]
    done = [entry for entry in run.entries if entry.error is None]
    step = max(1, -(-len(done) * len(wanted) // max(most, 1)))
    tiles: list[Tensor] = []
    titles: list[str] = []
    for entry in done[::step]:
        for name, answer in run[entry.number].items():
            if name in wanted:
                for key, tile in _tiles(run, entry, name, answer).items():
                    tiles.append(tile)
                    titles.append(_title(entry, answer, name if key == "input" or len(answer.maps) < 2 else key))
    if not tiles:
        raise InputError(f"the run in {named(run.folder.root)} has no heatmaps of images to draw yet")
    size = tuple(tiles[0].shape[1:])
    same = [tile if tile.shape[1:] == size else _resized(tile, size) for tile in tiles]
    failed = len(run.failures)
    title = f"{len(run)} items" + (f", {failed} failed" if failed else "") + f" · {', '.join(wanted)}"
    return plots.contact_sheet(torch.stack(same), titles=titles, title=title, scaled=False)


def _tiles(run: OpenRun, entry: Entry, name: str, answer: Attribution) -> dict[str, Tensor]:
    """(3, H, W) in [0, 1] by layer."""
    found: dict[str, Tensor] = {}
    for key, map_ in answer.maps.items():
        path = overlays.place(run.folder.root, {"item": entry.number, "name": entry.name}, name, key)
        if path.is_file():
            with Image.open(path, formats=("PNG",)) as image:
                found[key] = _tensor(np.asarray(image.convert("RGB")))
        elif map_.ndim == 4 and answer.technique.kind == "heatmap":
            grey = np.full((1, *map_.shape[-2:], 3), 0.5)
            found |= {key: _tensor(row[0]) for key, row in overlays.heatmaps(answer, grey).items()}
    # Of one width, so that the words below the smallest maps can be read.
    sizes = {key: (max(1, round(tile.shape[1] * _SIDE / tile.shape[2])), _SIDE) for key, tile in found.items()}
    return {key: _resized(tile, sizes[key]).clamp(0, 1) for key, tile in found.items()}


def _title(entry: Entry, answer: Attribution, name: str) -> str:
    stem = entry.name.rsplit("/", 1)[-1]
    told = f"{stem[-_TITLE:]} {name}"
    if answer.target is not None and answer.scores is not None:
        told += f" {int(answer.target[0, 0])}: {float(answer.scores[0, 0]):.2g}"
    return told


def _tensor(pixels: "np.ndarray[Any, Any]") -> Tensor:
    return torch.from_numpy(pixels.astype(np.float64) / 255).movedim(-1, 0)


def _resized(tile: Tensor, size: tuple[int, ...]) -> Tensor:
    return torch.nn.functional.interpolate(tile[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
