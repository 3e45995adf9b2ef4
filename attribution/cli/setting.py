"""What a question is asked of: a model on a device, and how photos reach it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from attribution import zoo
from attribution.cli.reading import UNCHANGED, Typed
from attribution.errors import InputError, TargetError
from attribution.running.execution import Execution, running
from attribution.scores.classes import ClassScore
from attribution.scores.targets import Target
from attribution.technique import Technique
from attribution.techniques import FilterVisualization

TechniqueT = TypeVar("TechniqueT", bound=Technique)
_NEARLY = 0.8  # the usual transforms cut an eighth off a square photo


def chosen_device(device: str) -> str:
    """``"cpu"`` or ``"cuda"``.

    Raises:
        InputError: there is no such device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"no device {device!r}; give cpu, cuda or auto")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device found; take --device cpu or auto")
    return "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")


@dataclass(frozen=True)
class Setting:
    """A loaded model, where and how it runs, and whether photos are stretched."""

    loaded: zoo.LoadedModel
    device: torch.device
    stretch: bool
    batch_size: int | None = None
    progress: bool | None = None

    @classmethod
    def of(
        cls,
        spec: str,
        weights: Path | None,
        device: str,
        stretch: bool,
        reading: Typed = UNCHANGED,
        *,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> Self:
        """Load a model onto a device; what is assumed of a bare one is told.

        Raises:
            InputError: there is no such device, or an option of ``reading`` cannot be read.
            ModelError: the model cannot be loaded.
        """
        chosen = chosen_device(device)
        loaded = zoo.load(spec, weights=weights)
        if loaded.assumed and None in (reading.size, reading.mean, reading.std):
            print(f"note: {loaded.assumed}; --size, --mean and --std say otherwise", file=sys.stderr)
        loaded = reading.applied(loaded)
        loaded.model.to(chosen)
        return cls(loaded, torch.device(chosen), stretch, batch_size, progress)

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.loaded.model

    @property
    def execution(self) -> Execution:
        """As typed; without a word, progress bars where somebody sees them."""
        progress = sys.stderr.isatty() if self.progress is None else self.progress
        return Execution(progress=progress, batch_size=self.batch_size)

    def inputs(self, photo: Image.Image) -> Tensor:
        """(1, C, H, W) on the model's device and in its dtype."""
        dtype = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)
        return self.loaded.inputs(photo, stretch=self.stretch).to(self.device, dtype)

    def cut(self, photo: Image.Image) -> str:
        """How much of a photo the model does not see, in words; ``""`` where it sees nearly all.

        The transform is shown an image of the photo's size whose red and green grow from edge to edge.
        """
        if self.stretch or len(self.loaded.mean) != 3:
            return ""
        width, height = photo.size
        ramp = np.zeros((height, width, 3), dtype=np.uint8)
        ramp[..., 0] = np.linspace(0, 255, width).round()[None, :]
        ramp[..., 1] = np.linspace(0, 255, height).round()[:, None]
        seen = self.picture(self.loaded.inputs(Image.fromarray(ramp)))
        # Between the middles of the first and the last pixel lie all pixels but one.
        parts = [
            min(1.0, float(np.ptp(seen[..., channel])) * count / max(1, count - 1))
            for channel, count in ((0, seen.shape[1]), (1, seen.shape[0]))
        ]
        told = [f"{part:.0%} of the {side}" for part, side in zip(parts, ("width", "height"), strict=True)]
        return "" if min(parts) > _NEARLY else f"the model sees {' and '.join(told)}"

    def picture(self, inputs: Tensor) -> np.ndarray:
        """What the model saw, (H, W, 3) in [0, 1]."""
        seen: np.ndarray = self.loaded.picture(inputs)[0]
        return seen

    def target(self, texts: Sequence[str]) -> Target:
        """Class names or indices, as `explain` takes them for one image.

        Raises:
            TargetError: no class is called so, or ``all`` is not alone.
        """
        if not texts:
            return None
        if "all" in texts:
            if len(texts) > 1:
                raise TargetError("--target all means every class; leave the other targets out")
            return "all"
        return [list(dict.fromkeys(self.loaded.index(text) for text in texts))]

    def fitted(self, technique: TechniqueT) -> TechniqueT:
        """The technique with what the transform tells: how far the values of photos spread, where it asks for that."""
        if isinstance(technique, FilterVisualization) and technique.spread is None:
            return replace(technique, spread=self.loaded.spread)
        return technique

    def logits(self, inputs: Tensor) -> Tensor:
        """(N, K).

        Raises:
            ModelError: the model fails, or does not return a matrix of logits.
        """
        with torch.no_grad():
            with running(inputs):
                output = self.model(inputs)
            return ClassScore().matrix(output, torch.arange(len(inputs), device=inputs.device))

    def top(self, inputs: Tensor) -> list[tuple[str, int, float]]:
        """The five most probable classes of one image: (label, index, probability).

        Raises:
            ModelError: the model fails, or does not return a matrix of logits.
        """
        return self.loaded.top(self.logits(inputs))[0]
