"""One full forward per window, batched: no masks, and the differences kept as a matrix until the end."""

from collections.abc import Sequence

import torch
from torch import Tensor

from attribution.attributor import Run
from attribution.techniques import Occlusion
from attribution.techniques.occlusion import Lattice
from attribution_hooks.occlusion.chunks import in_parts

Pair = tuple[int, int]


def differences(run: Run, technique: Occlusion, lattice: Lattice, clean: Tensor, target: Tensor, chunk: int) -> Tensor:
    """score(x) − score(x with window w covered): (windows, N, T).

    Args:
        run: Its inputs are (N, C, H, W).
        technique: Says what covers and how logits become scores.
        lattice: The windows.
        clean: (N, T), scores of the inputs as they are.
        target: (N, T).
        chunk: Covered images per forward; windows and images run through one another.
    """
    inputs, cover = run.inputs, technique.cover(run.inputs)
    windows = lattice.windows
    pairs = [(w, n) for w in range(len(windows)) for n in range(len(inputs))]
    deltas = clean.new_empty((len(windows), *clean.shape), dtype=torch.promote_types(clean.dtype, torch.float32))

    def work(part: Sequence[Pair]) -> None:
        at, images = torch.tensor(part, device=inputs.device).unbind(dim=1)
        covered = inputs[images]
        for row, (w, _) in enumerate(part):
            (top, bottom), (left, right) = windows[w]
            covered[row, :, top:bottom, left:right] = cover[0]
        scores = technique.scores(run.forward(covered)).gather(1, target[images])
        deltas[at, images] = (clean[images] - scores).to(deltas.dtype)

    with run.progress(len(pairs), "window") as advance:
        run.note("windows_per_forward", in_parts(pairs, chunk, work, advance))
    return deltas
