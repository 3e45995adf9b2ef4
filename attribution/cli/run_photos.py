"""The photos of a run: found again, and shown where they are still those that the run saw."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attribution import paths, runs
from attribution.cli.run import items_of
from attribution.cli.setting import Setting
from attribution.errors import AttributionError, InputError
from attribution.images.colours import rgb
from attribution.report.report import Top
from attribution.runs import Entry, ImageFiles, OpenRun, fingerprint

_WHOLE = (
    "Photos are shown whole, as their files hold them, since what the model of the run saw of them is not known. With "
    "the run's --model, --weights and --stretch its maps lie over them."
)


@dataclass(frozen=True)
class Seen:
    """What a page shows of an item's photo.

    Attributes:
        image: What the model saw, (H, W, 3) in [0, 1]; ``None``: not known.
        whole: The photo itself, likewise, where nobody knows what the model saw of it.
        top: The most probable classes.
        notes: Why something is missing.
    """

    image: Any = None
    whole: Any = None
    top: Top = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Photos:
    """Where the photos of a run lie.

    Attributes:
        files: All that lie there; ``None``: none is shown.
        setting: The model of the run; ``None``: photos are shown whole.
        where: Where they were looked for, as the end of a sentence.
        told: What a page says of all of them.
    """

    files: ImageFiles | None
    setting: Setting | None
    where: str
    told: str = ""

    @classmethod
    def of(cls, run: OpenRun, stated: Path | None, setting: Setting | None, default: Callable[[], Setting]) -> Self:
        """Those that a user names, or those that the run remembers.

        Args:
            run: The run.
            stated: The folder or list that a user names; ``None``: where the run found them.
            setting: The model that a user names; ``None``: ``default()`` where it turns out to be that of the run.
            default: The model of runs that name none.

        Raises:
            InputError: What a user names is not that of the run.
        """
        place = stated or run.folder.place
        where = "where --photos looks" if stated else "where the run saw it"
        if place is None:
            if setting is not None:
                raise InputError("the run does not tell where its photos lie; give --photos too, or leave --model out")
            return cls(None, None, where, "The run does not tell where its photos lie; --photos shows them.")
        if not (stated or place.exists()):
            return cls(None, None, where, f"No photos are at {paths.named(place)} any more; --photos shows them.")
        if stated or setting is not None:
            chosen = setting or default()
            return cls(_same(run, items_of(place, chosen, run.folder.root), chosen), chosen, where)
        try:
            usual = replace(default(), stretch=run.folder.settings["transform"].count(", stretched") == 1)
            return cls(_same(run, items_of(place, usual, run.folder.root), usual), usual, where)
        except AttributionError:
            pass
        try:
            return cls(_whole(place, run.folder.root), None, where, _WHOLE)
        except InputError as error:  # no photo is left there, or the list is none any more
            return cls(None, None, where, f"No photos are shown: {error}.")

    def seen(self, entry: Entry) -> Seen:
        """Of one item."""
        if self.files is None:
            return Seen()
        place = self._places.get(entry.name)
        if place is None:
            return Seen(notes=(f"The photo is not {self.where}, so that its maps stand alone.",))
        try:
            item = self.files[place]
        except InputError as error:
            return Seen(notes=(f"The photo cannot be read any more: {error}",))
        if item.sha256 != entry.sha256:
            return Seen(notes=("The photo is another one than the run saw, so that its maps stand alone.",))
        inputs = item.inputs[None]
        if self.setting is None:
            return Seen(whole=inputs[0].movedim(0, -1).numpy())
        top: Top = ()
        with suppress(AttributionError):  # the output is no matrix of logits, as of a segmentation
            top = self.setting.top(inputs.to(self.setting.device))
        return Seen(image=self.setting.picture(inputs), top=top)

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {} if self.files is None else {name: place for place, name in enumerate(self.files.names)}


def _same(run: OpenRun, found: ImageFiles, setting: Setting) -> ImageFiles:
    """The photos, refused where the model would see something else of them than it did."""
    settings = run.folder.settings
    if settings["model"]["weights"] != fingerprint.of_model(setting.model)["weights"]:
        raise InputError(
            f"the run was made with other weights than those of {setting.loaded.name}; name its --model and --weights, "
            "or leave --photos out"
        )
    if settings["transform"] != found.transform:
        raise InputError(
            f"the run read its photos by {settings['transform']}, and {setting.loaded.name} reads them by "
            f"{found.transform}; give the --stretch of the run, or leave --photos out"
        )
    return found


def _whole(place: Path, out: Path) -> ImageFiles:
    """The files as they are."""

    def pixels(photo: Image.Image) -> Tensor:
        return torch.from_numpy(np.asarray(rgb(photo, "the photo"), dtype=np.float32) / 255).movedim(-1, 0)

    if place.suffix.lower() == ".csv":
        return runs.of_list(place, pixels, told="whole", index=lambda _: 0)
    return runs.of_folder(place, pixels, told="whole", without=out)
