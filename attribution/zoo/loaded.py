"""A model with what belongs to it: its transform and its class names."""

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from attribution import class_names
from attribution.errors import InputError, ModelError, TargetError
from attribution.zoo import labels as names

if TYPE_CHECKING:
    from PIL import Image

_TITLES = {"squeezenet1_1": "SqueezeNet 1.1", "efficientnet_lite0": "EfficientNet-Lite0"}
_LONGEST = 50  # a transform scales the shorter side to about 256; beyond this ratio the longer one explodes


@dataclass(frozen=True)
class LoadedModel:
    """A classifier, ready to be explained.

    Args:
        name: the spec it was loaded by.
        model: the network, in eval mode, on the CPU.
        transform: from an RGB photo to the model's input (C, H, W); the one that belongs to the weights.
        mean: of the normalisation at the end of the transform, per channel, for values in [0, 1].
        std: likewise; ``(value − mean) / std`` is what the model gets.
        labels: one name per class, or ``None`` when they are unknown. Lists, arrays and dicts from index to name become
            a tuple.
        assumed: what was assumed of a network that came without its transform, in words; ``""``: nothing.

    Raises:
        InputError: the labels are of another form.
    """

    name: str
    model: nn.Module
    transform: "Callable[[Image.Image], Tensor]"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: tuple[str, ...] | None
    assumed: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", class_names.every(self.labels))

    def __repr__(self) -> str:
        classes = "labels unknown" if self.labels is None else f"{len(self.labels)} classes"
        return f"<LoadedModel {self.name}: {type(self.model).__name__}, {classes}>"

    def _repr_html_(self) -> str:
        rows = {
            "model": type(self.model).__name__,
            "classes": "unknown"
            if self.labels is None
            else f"{len(self.labels)}: {', '.join(self.labels[:5])}{', …' * (len(self.labels) > 5)}",
            "mean": ", ".join(f"{value:.4g}" for value in self.mean),
            "std": ", ".join(f"{value:.4g}" for value in self.std),
        }
        cells = "".join(f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items())
        return f"<table><caption>{html.escape(self.name)}</caption>{cells}</table>"

    @property
    def title(self) -> str:
        """The network's name in the titles of figures."""
        source, _, name = self.name.rpartition(":")
        if source in ("torchvision", "timm"):
            return name
        return _TITLES.get(name, type(self.model).__name__) if source == "bundled" else type(self.model).__name__

    @property
    def spread(self) -> float:
        """Standard deviation of photos in model-input units, taking a quarter of black to white for it in [0, 1]."""
        return 0.25 * len(self.std) / sum(self.std)

    def inputs(self, photo: "Image.Image", *, stretch: bool = False) -> Tensor:
        """What the model gets for a photo, as a batch of one.

        Args:
            photo: an image of mode ``RGB`` or ``L``.
            stretch: scale the whole photo to the size that the transform crops to, whatever its aspect,
                bilinearly; nothing is cut off and the normalisation is the same.

        Returns:
            (1, C, H, W), normalised.

        Raises:
            InputError: the photo has another mode, or is so elongated that scaling its shorter side would
                make it huge.
            ModelError: the transform returns no (C, H, W) tensor.
        """
        if photo.mode not in ("RGB", "L"):
            raise InputError(f"the photo has mode {photo.mode!r}; expected 'RGB': read it with attribution.images.read")
        if photo.mode == "L" and len(self.mean) == 3:
            photo = photo.convert("RGB")
        if stretch:
            return self._stretched(photo)
        width, height = photo.size
        if max(width, height) > _LONGEST * min(width, height):
            raise InputError(
                f"the photo is {width} × {height}, more than {_LONGEST} times as long as wide; crop or stretch it"
            )
        return self._transformed(photo)[None]

    def picture(self, inputs: Tensor) -> np.ndarray:
        """What the model saw: ``inputs · std + mean``, clipped to [0, 1].

        Args:
            inputs: (N, C, H, W) with one channel per entry of ``mean``.

        Returns:
            (N, H, W, 3), float32; one channel is repeated to grey.

        Raises:
            InputError: the shape is another.
        """
        if inputs.ndim != 4 or inputs.shape[1] != len(self.mean):
            raise InputError(
                f"inputs of shape {tuple(inputs.shape)}; expected (N, {len(self.mean)}, H, W) as {self.name} takes"
            )
        mean, std = (torch.tensor(values, device="cpu").view(1, -1, 1, 1) for values in (self.mean, self.std))
        seen = (inputs.detach().cpu().float() * std + mean).clamp(0, 1).movedim(1, -1)
        pixels: np.ndarray = seen.expand(*seen.shape[:3], 3).numpy().copy()
        return pixels

    def label(self, index: int) -> str:
        """The name of a class, such as ``"espresso"``; ``"class 7"`` when the names are unknown.

        Raises:
            TargetError: the model has no class of this index.
        """
        if index < 0 or (self.labels is not None and index >= len(self.labels)):
            last = "" if self.labels is None else f" to {len(self.labels) - 1}, as it has {len(self.labels)} labels"
            raise TargetError(f"no class {index}; classes of {self.name} count from 0{last}")
        return f"class {index}" if self.labels is None else self.labels[index]

    def index(self, text: str) -> int:
        """The class that a text names: ``"espresso"``, ``"Espresso"`` or ``"967"``.

        Raises:
            TargetError: no class is called so (the text names the nearest), or several are (the text lists
                their indices).
        """
        return names.find(text, self.labels)

    def top(self, logits: Tensor, k: int = 5) -> list[list[tuple[str, int, float]]]:
        """The k most probable classes of each image: softmax of the logits.

        Args:
            logits: (N, K).
            k: how many, at least 1; all K when there are fewer.

        Returns:
            Per image a list of (label, index, probability in [0, 1]), best first.

        Raises:
            InputError: the logits are no matrix, or k is below 1.
        """
        if logits.ndim != 2 or k < 1:
            raise InputError(f"logits of shape {tuple(logits.shape)} and k = {k}; expected (N, K) and k ≥ 1")
        probabilities = logits.detach().cpu().float().softmax(dim=1)
        best = probabilities.topk(min(k, probabilities.shape[1]), dim=1)
        return [
            [(self.label(index), index, value) for value, index in zip(values, indices, strict=True)]
            for values, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def _transformed(self, photo: "Image.Image") -> Tensor:
        try:
            with torch.device("cpu"):  # whatever the default device is
                result = self.transform(photo)
        except Exception as error:  # it may be a stranger's
            size = f"{photo.width} × {photo.height}"
            told = f"{type(error).__name__}: {error}"
            raise ModelError(f"the transform of {self.name} fails on a photo of {size} pixels: {told}") from error
        if not isinstance(result, Tensor) or result.ndim != 3 or not result.is_floating_point():
            what = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise ModelError(f"the transform of {self.name} returned {what}; expected a float tensor (C, H, W)")
        return result

    def _stretched(self, photo: "Image.Image") -> Tensor:
        from PIL import Image

        # A square photo is never cropped unevenly, so what comes out of it is the crop size.
        height, width = self._transformed(Image.new(photo.mode, (256, 256))).shape[1:]
        mode = "L" if len(self.mean) == 1 else "RGB"
        scaled = photo.convert(mode).resize((width, height), Image.Resampling.BILINEAR)
        values = torch.from_numpy(np.array(scaled, dtype=np.float32)).view(height, width, len(self.mean)) / 255
        mean, std = (torch.tensor(each, device="cpu") for each in (self.mean, self.std))
        return ((values - mean) / std).movedim(-1, 0)[None].contiguous()
