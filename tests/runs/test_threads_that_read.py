"""How many threads read at once, when they begin, and which transforms they may call together."""

import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.models import ResNet18_Weights
from torchvision.transforms import v2

from attribution import Saliency, runs
from attribution.runs.folder import RunFolder
from attribution.runs.items import Item
from attribution.runs.reading import ShardReader
from attribution.runs.transforms import stateless
from attribution.testing import small_cnn
from tests.runs.data import contents, painted, to_tensor

STEPS = [transforms.Resize(13), transforms.CenterCrop(12), transforms.ToTensor()]


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (transforms.Compose(STEPS), True),
        (transforms.Compose([transforms.Compose(STEPS), transforms.Normalize([0.5], [0.5])]), True),
        (v2.Compose([v2.Resize(13), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]), True),
        (ResNet18_Weights.DEFAULT.transforms(), True),
        (transforms.Compose([transforms.RandomCrop(12), transforms.ToTensor()]), False),
        (transforms.Compose([*STEPS, transforms.Lambda(lambda image: image)]), False),
        (transforms.Compose([*STEPS, abs]), False),
        (to_tensor, False),
    ],
)
def test_transforms_of_torchvision_that_keep_nothing(transform: Callable[..., Any], expected: bool) -> None:
    assert stateless(transform) is expected


class Pairs:
    """A transform that only two threads together get through."""

    def __init__(self) -> None:
        self.both = threading.Barrier(2)

    def __call__(self, photo: Image.Image) -> Tensor:
        self.both.wait(60)
        return to_tensor(photo)


class Alone:
    """A transform that breaks where two threads are in it."""

    def __init__(self) -> None:
        self.held = threading.Lock()

    def __call__(self, photo: Image.Image) -> Tensor:
        if not self.held.acquire(blocking=False):
            raise ValueError("two at once")
        time.sleep(0.002)  # for the other thread to come
        self.held.release()
        return to_tensor(photo)


def explained(photos: Path, out: Path, transform: Any, threads: int = 2, **options: Any) -> runs.OpenRun:
    items = runs.of_folder(photos, transform, told="one", **options)
    plan: dict[str, Any] = {"batch_size": 4, "threads": threads, "progress": False}
    return runs.run(small_cnn(), items, Saliency(), out=out, **plan)


def test_a_strangers_transform_is_called_by_one_thread_at_a_time(tmp_path: Path) -> None:
    photos = painted(tmp_path / "photos", 8)
    explained(photos, tmp_path / "in_turn", to_tensor)
    assert not explained(photos, tmp_path / "alone", Alone()).failures
    assert explained(photos, tmp_path / "broken", Alone(), together=True).failures  # the mutant: no lock
    expected = contents(tmp_path / "in_turn")
    assert contents(tmp_path / "alone") == expected


def test_two_threads_read_at_once(tmp_path: Path) -> None:
    photos = painted(tmp_path / "photos", 8)
    folder, items = reading(photos, "cpu", Pairs(), together=True)
    reader = ShardReader(folder, items, [0, 1])
    found = [item for index in range(2) for item in reader[index][1]]
    reader.close()
    assert all(
        isinstance(item, Item) and torch.equal(item.inputs, to_tensor(Image.open(photos / name)))
        for item, name in zip(found, items.names, strict=True)
    )


def reading(photos: Path, device: str, transform: Any, **options: Any) -> tuple[RunFolder, runs.ImageFiles]:
    items = runs.of_folder(photos, transform, **options)
    settings = {"batch_size": 4, "threads": 2, "device": device}
    return RunFolder(photos, settings, tuple(items.names), None, "nowhere"), items


@pytest.mark.parametrize(("device", "ahead"), [("cpu", 0), ("cuda, float32 products high", 4)])
def test_what_is_read_before_its_turn(tmp_path: Path, device: str, ahead: int) -> None:
    seen: list[int] = []

    def transform(photo: Image.Image) -> Tensor:
        seen.append(threading.get_ident())
        return to_tensor(photo)

    folder, items = reading(painted(tmp_path / "photos", 12), device, transform)
    reader = ShardReader(folder, items, [0, 2])
    names = [item.sha256 for item in reader[0][1]]
    end = time.monotonic() + 60
    while len(seen) < 4 + ahead:
        assert time.monotonic() < end
        time.sleep(0.001)
    if not ahead:
        assert len(seen) == 4
    names += [item.sha256 for item in reader[1][1]]
    assert names == [items.digest(item) for item in (0, 1, 2, 3, 8, 9, 10, 11)]
    assert len(seen) == 8
    assert threading.get_ident() not in seen
    reader.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("attribution-")]


def test_items_go_to_another_process(tmp_path: Path) -> None:
    items = runs.of_folder(painted(tmp_path / "photos", 2), to_tensor)
    again = pickle.loads(pickle.dumps(items))
    assert torch.equal(again[1].inputs, items[1].inputs)
