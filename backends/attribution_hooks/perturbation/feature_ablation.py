"""``HooksFeatureAblation``: one difference per segment, by what it changes where that can be had."""

from typing import ClassVar

import torch
from torch import Tensor

from attribution.attributor import Attributor, Run
from attribution.technique import Maps
from attribution.techniques import FeatureAblation
from attribution.techniques.perturbation.lattice import Lattice
from attribution.techniques.perturbation.segments import boxes
from attribution_hooks.chunks import rows_at_once
from attribution_hooks.covers import SegmentCovers
from attribution_hooks.perturbation.clean import clean
from attribution_hooks.perturbation.differences import differences


class HooksFeatureAblation(Attributor[FeatureAblation]):
    """`FeatureAblation` with every target from the same segments, by the two ways of `HooksOcclusion`.

    What lies around a segment is the window that it changes; in it only the segment is covered.
    """

    technique_type: ClassVar[type[FeatureAblation]] = FeatureAblation
    backend: ClassVar[str] = "hooks"

    def compute(self, run: Run[FeatureAblation]) -> Maps:
        """(N, T, *places) of each covered input."""
        technique, maps = run.technique, {}
        with torch.no_grad():
            labels = {name: technique.labels(run.inputs.values[name], name) for name in technique.covered(run.inputs)}
            counts = {name: int(each.max()) + 1 for name, each in labels.items()}
            chunk = rows_at_once(run, max(counts.values()) * len(run.inputs))
            matrix = clean(run, chunk)
            run.note("segments", sum(counts.values()))
            for name, own in labels.items():
                x, common = run.inputs.values[name], len(own) == 1
                covers = SegmentCovers(x, technique.cover(x, name), own)
                whole = None if common else "segments differ from image to image"
                deltas = differences(run, name, _around(own, counts[name]), covers, matrix, chunk, whole)
                maps[run.inputs.key(name)] = spread(deltas, own)
        return maps


def _around(labels: Tensor, count: int) -> Lattice:
    """A window for each segment; of several maps only their number is true."""
    axes = boxes(labels[0]) if len(labels) == 1 else tuple(((0, 1),) * count for _ in labels.shape[1:])
    place = sum(count**axis for axis in range(len(axes)))
    return Lattice(axes, tuple(segment * place for segment in range(count)))


def spread(values: Tensor, labels: Tensor) -> Tensor:
    """From segments to places: (segments, N, T) → (N, T, *places)."""
    by_example = values.movedim(0, 2).contiguous()  # (N, T, segments)
    index = labels.to(values.device).flatten(1)[:, None].expand(*by_example.shape[:2], -1)
    return by_example.gather(2, index).view(*by_example.shape[:2], *labels.shape[1:])
