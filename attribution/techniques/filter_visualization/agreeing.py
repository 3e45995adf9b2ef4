"""When two backends found the same filter images."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from attribution.agreement import Agreement, agree, relative_tolerance
from attribution.technique import Comparable, paired_maps
from attribution.techniques.filter_visualization.optimisation import DEAD

FIRST_STEP = "first_step"
"""Key of the raw maps that holds the images after one step, which is where two backends are compared."""


def agreed(layer: str, titles: Sequence[str], a: Comparable, b: Comparable) -> list[Agreement]:
    """The images after one step (a tenth of the tolerance in float32), and the final objectives within 1 %.

    On an accelerator 10 %: a hundredth was passed by 2 of 64 filters after three steps, with TF32 off.

    Later images are not compared: 60 float32 steps spread rounding to tens of percent. A channel that is dead on
    both sides proves nothing: its image is the start that both share.
    """
    pieces = paired_maps(a, b, by_target=False, only=FIRST_STEP)
    host = a.on_host and b.on_host
    pairs = [
        agree(name, x, y, relative=relative_tolerance(dtype, host=host) / (10 if dtype == torch.float32 else 1))
        for name, x, y, dtype in pieces
    ]
    finals = [side.extras.get("objective", torch.empty(1, 0, device="cpu"))[-1] for side in (a, b)]
    if len(pairs) != len(titles) or finals[0].shape != finals[1].shape:
        return [*pairs, agree("final objective", *finals, relative=0.0)]
    dead = (_dead(a, len(pairs)) & _dead(b, len(pairs))).tolist()
    names = [f"{layer} · {title}" for title in titles]
    steps = [replace(pair, name=f"{name} · first step") for name, pair in zip(names, pairs, strict=True)]
    ends = [
        agree(f"{name} · final objective", x, y, relative=1e-2 if host else 1e-1)
        for name, x, y in zip(names, *finals, strict=True)
    ]
    return [replace(p, degenerate=p.degenerate or d) for p, d in zip([*steps, *ends], [*dead, *dead], strict=True)]


def _dead(result: Comparable, images: int) -> Tensor:
    status = result.extras.get("status", torch.zeros(images, dtype=torch.int8, device="cpu"))
    return status.cpu() == DEAD
