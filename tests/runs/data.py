"""Small data sets, folders of images and works for the tests of runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from attribution import GradCAM, Saliency
from attribution.errors import InputError
from attribution.runs import Batch, Part
from attribution.technique import Technique
from attribution.testing import small_cnn

TECHNIQUES: Mapping[str, Technique] = {"cam": GradCAM(layers=("body",)), "saliency": Saliency()}


class Noise(Dataset[tuple[Tensor, int]]):
    """Images of noise, some of which cannot be read."""

    def __init__(self, count: int, *, size: tuple[int, int] = (13, 17), bad: Sequence[int] = ()) -> None:
        self.count, self.size, self.bad = count, size, frozenset(bad)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index in self.bad:
            raise ValueError(f"no {index}")
        return torch.randn(3, *self.size, generator=torch.Generator().manual_seed(index)), 7


def to_tensor(photo: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(photo, dtype=np.float32) / 255).movedim(-1, 0).contiguous()


def paint(path: Path, seed: int, size: tuple[int, int] = (16, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")
    return path


def painted(root: Path, count: int, *, bad: Sequence[int] = ()) -> Path:
    """A folder of PNGs of 16 × 16 pixels, some of which are text."""
    for index in range(count):
        path = paint(root / f"{index:04d}.png", index)
        if index in bad:
            path.write_text("no image")
    return root


@dataclass
class Means:
    """A work of its own: the mean of each item's inputs. ``refuses`` says of which batches it fails, and how."""

    model: nn.Module = field(default_factory=small_cnn)
    refuses: Callable[[Tensor], Exception | None] = lambda inputs: None
    sizes: list[int] = field(default_factory=list)
    kind: str = "means"

    @property
    def columns(self) -> Mapping[str, str]:
        return {"mean": "double"}

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"what": "means"}

    def __call__(self, batch: Batch, keep: Sequence[int]) -> Part:
        self.sizes.append(len(batch))
        if error := self.refuses(batch.inputs):
            raise error
        means = batch.inputs.mean(dim=(1, 2, 3))[list(keep)]
        return Part({"means": means}, {}, [[{"mean": value}] for value in means.tolist()])


def negative(inputs: Tensor) -> Exception | None:
    """What a work says to a batch with an image whose mean is negative."""
    return InputError("it is negative") if bool((inputs.mean(dim=(1, 2, 3)) < 0).any()) else None


def contents(root: Path) -> dict[str, bytes]:
    """The shards of a run by name."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.safetensors"))}
