"""From windows to pixels."""

from torch import Tensor

from attribution.techniques.occlusion import Lattice


def fold(deltas: Tensor, lattice: Lattice, size: tuple[int, int]) -> Tensor:
    """Each pixel's mean over the windows that cover it: (windows, N, T) → (N, T, H, W); 0 where none does."""
    total = deltas.new_zeros((*deltas.shape[1:], *size))
    count = deltas.new_zeros(size)
    for delta, ((top, bottom), (left, right)) in zip(deltas, lattice.windows, strict=True):
        total[..., top:bottom, left:right] += delta[..., None, None]
        count[top:bottom, left:right] += 1
    return total / count.clamp(min=1)
