"""One full forward per window, batched: no masks, and the differences kept as a matrix until the end."""

import torch
from torch import Tensor

from attribution.attributor import Run
from attribution.techniques import Occlusion
from attribution.techniques.occlusion import Lattice


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
    with run.progress(-(-len(pairs) // chunk), "forward") as advance:
        for first in range(0, len(pairs), chunk):
            part = pairs[first : first + chunk]
            images = torch.tensor([n for _, n in part], device=inputs.device)
            covered = inputs[images]
            for row, (w, _) in enumerate(part):
                (top, bottom), (left, right) = windows[w]
                covered[row, :, top:bottom, left:right] = cover[0]
            scores = technique.scores(run.forward(covered)).gather(1, target[images])
            at = torch.tensor([w for w, _ in part], device=inputs.device)
            deltas[at, images] = (clean[images] - scores).to(deltas.dtype)
            advance()
    return deltas


def fold(deltas: Tensor, lattice: Lattice, size: tuple[int, ...]) -> Tensor:
    """Each pixel's mean over the windows that cover it: (windows, N, T) → (N, T, H, W); 0 where none does."""
    total = deltas.new_zeros((*deltas.shape[1:], *size))
    count = deltas.new_zeros(size)
    for delta, ((top, bottom), (left, right)) in zip(deltas, lattice.windows, strict=True):
        total[..., top:bottom, left:right] += delta[..., None, None]
        count[top:bottom, left:right] += 1
    return total / count.clamp(min=1)
