"""What a process does that is going to be killed; it imports no test."""

from pathlib import Path
from typing import Any

from attribution import GradCAM, runs
from attribution.testing import small_cnn
from tests.runs.data import Noise

COUNT, SHARD = 200, 4


def noise_run(root: Path, **options: Any) -> runs.OpenRun:
    """200 images of noise in shards of 4."""
    settled: dict[str, Any] = {"batch_size": SHARD, "progress": False, "threads": 1, **options}
    images = Noise(settled.pop("count", COUNT), size=(16, 16))
    return runs.run(small_cnn(), images, GradCAM(layers=("body",)), out=root, **settled)
