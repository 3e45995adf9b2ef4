"""A run over a folder against a bare loop and against a loop over pytorch-grad-cam.

``uv run --group peers python -m benchmarks.folder_runs`` prints both ratios, medians of interleaved rounds in one
process. The bare loop calls the same attributor, in batches of the same size and inside `attribution.prepared`, on
images that are decoded and transformed already, and keeps nothing; the other loop reads each image, transforms it and
asks pytorch-grad-cam, as its documentation shows. A run lists the folder, reads, hashes and transforms images,
computes, hashes, writes and flushes maps, and makes the table.

The line "at most" is what reading leaves: processor time of the bare loop over that of the loop and of reading, as if
no processor ever waited.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import models, transforms

from attribution import GradCAM, explain, prepared, runs
from attribution.images import read

BATCH = 8


def photos(root: Path, count: int, size: tuple[int, int] = (640, 480)) -> Path:
    """JPEGs of (width, height)."""
    random = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(root / f"{index:04d}.jpg", quality=90)
    return root


def bare(model: nn.Module, images: Tensor, technique: GradCAM) -> None:
    """The attributor alone."""
    with prepared(model):
        for batch in images.split(BATCH):
            explain(model, batch, technique)


def ours(model: nn.Module, folder: Path, transform: Any, technique: GradCAM, workers: int) -> None:
    """A whole run, from opening the folder to the table of scores."""
    with tempfile.TemporaryDirectory() as out:
        items = runs.of_folder(folder, transform)
        runs.run(model, items, technique, out=out, batch_size=BATCH, workers=workers, progress=False)


def theirs(model: nn.Module, folder: Path, transform: Any) -> None:
    """pytorch-grad-cam, image by image."""
    from pytorch_grad_cam import GradCAM as Theirs
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with Theirs(model=model, target_layers=[model.layer4[-1]]) as cam:  # type: ignore[index]
        for path in sorted(folder.iterdir()):
            image = transform(read(path))[None]
            with torch.no_grad():
                target = int(model(image).argmax())
            cam(input_tensor=image, targets=[ClassifierOutputTarget(target)])


def seconds(call: Callable[[], None]) -> float:
    """Of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def processors(call: Callable[[], None]) -> float:
    """Seconds of all processors that one call takes in this process."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--model", default="resnet18")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    model = getattr(models, given.model)(weights=None).eval()
    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    transform = transforms.Compose(steps)
    technique = GradCAM(layers=("layer4",))
    with tempfile.TemporaryDirectory() as root:
        folder = photos(Path(root), given.images, tuple(given.size))
        images = torch.stack([transform(read(path)) for path in sorted(folder.iterdir())])
        contestants: dict[str, Callable[[], None]] = {
            "bare loop": lambda: bare(model, images, technique),
            "run": lambda: ours(model, folder, transform, technique, given.workers),
            "pytorch-grad-cam": lambda: theirs(model, folder, transform),
        }
        for call in contestants.values():
            call()
        torch.set_num_threads(1)  # of more, those that wait for work would be counted too
        computing = processors(contestants["bare loop"])
        reading = processors(lambda: [transform(read(path)) for path in sorted(folder.iterdir())].clear())
        torch.set_num_threads(threads)
        rounds = [{name: seconds(call) for name, call in contestants.items()} for _ in range(given.rounds)]
    width, height = given.size
    print(f"{given.model}, {given.images} images of {width} × {height}, {given.workers} workers, {threads} threads")
    for name in contestants:
        print(f"{name:18} {median(given.images / each[name] for each in rounds):8.2f} images/s")
    print(f"run against the bare loop: {median(each['bare loop'] / each['run'] for each in rounds):.2f}")
    print(f"at most, for what reading takes: {computing / (computing + reading):.2f}")
    print(f"run against pytorch-grad-cam: {median(each['pytorch-grad-cam'] / each['run'] for each in rounds):.2f}")


if __name__ == "__main__":
    main()
