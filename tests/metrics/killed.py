"""What a process does that is going to be killed; it imports no test."""

from pathlib import Path

from attribution import GradCAM, Saliency
from attribution.metrics import ROAD, SRG, Infidelity, Table, evaluate
from attribution.testing import small_cnn
from tests.conftest import noise

COUNT, SHARD = 14, 2


def evaluation(root: Path | None, count: int = COUNT) -> Table:
    """14 photos in shards of 2; everything that is drawn at random is asked for."""
    return evaluate(
        small_cnn(),
        noise(count, 3, 17, 23),
        [GradCAM(layers=("body",)), Saliency()],
        metrics=(SRG(steps=2), ROAD(removed=(0.5,)), Infidelity(samples=2)),
        baselines=("noise",),
        batch_size=SHARD,
        out=root,
    )
