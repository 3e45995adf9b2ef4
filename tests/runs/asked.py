"""Runs that the tests ask for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attribution import (
    runs,
)
from attribution.runs import Plan, carry_out
from attribution.testing import small_cnn
from tests.runs.data import TECHNIQUES, Means, Noise

QUIET = Plan(batch_size=4, progress=False)


def ran(out: Path, count: int = 11, *, bad: Sequence[int] = (), **options: Any) -> runs.OpenRun:
    settled: dict[str, Any] = {"batch_size": 4, "progress": False, **options}
    techniques = settled.pop("techniques", TECHNIQUES)
    return runs.run(settled.pop("model", small_cnn()), Noise(count, bad=bad), techniques, out=out, **settled)


def means(out: Path, work: Means, items: Any, plan: Plan = QUIET, **options: Any) -> runs.Outcome:
    return carry_out(work, items, out, plan, **options)


class Reordered:
    """The same examples with some at the end, so that the first one can be tried."""

    def __init__(self, images: Noise, last: Sequence[int]) -> None:
        self.images, self.order = images, [item for item in range(len(images)) if item not in last] + list(last)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Any:
        return self.images[self.order[index]]
