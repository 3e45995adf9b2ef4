"""One full forward per window, batched: no masks, and the differences kept as a matrix until the end."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from attribution.attributor import Run
from attribution.running.upload import upload
from attribution.techniques import Occlusion
from attribution_hooks.chunks import in_parts
from attribution_hooks.covers import Covers


def differences(
    run: Run, technique: Occlusion, covers: Covers, windows: int, clean: Tensor, target: Tensor, chunk: int
) -> Tensor:
    """score(x) − score(x with window w covered): (windows, N, T).

    Args:
        run: Its inputs are (N, C, H, W).
        technique: Says how logits become scores.
        covers: Of the inputs.
        windows: How many the lattice has.
        clean: (N, T), scores of the inputs as they are.
        target: (N, T).
        chunk: Covered images per forward; windows and images run through one another.
    """
    count = len(run.inputs)
    deltas = clean.new_empty((windows * count, clean.shape[1]), dtype=torch.promote_types(clean.dtype, torch.float32))
    pairs = upload(np.stack(np.divmod(np.arange(windows * count), count)), clean.device)

    def work(part: Sequence[int]) -> None:
        rows = slice(part[0], part[-1] + 1)
        at, images = pairs[:, rows]
        scores = technique.scores(run.forward(covers.of(at, images))).gather(1, target[images])
        deltas[rows] = (clean[images] - scores).to(deltas.dtype)

    with run.progress(len(deltas), "window") as advance:
        run.note("windows_per_forward", in_parts(range(len(deltas)), chunk, work, advance))
    return deltas.view(windows, *clean.shape)
