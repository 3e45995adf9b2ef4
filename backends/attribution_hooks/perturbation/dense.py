"""One full forward per window, batched: no masks, and the differences kept as a matrix until the end."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribution.attributor import Run
from attribution.lowered.forwards import Forward, forwarding
from attribution.running.upload import upload
from attribution_hooks.chunks import in_parts
from attribution_hooks.covers import Covering, beside


def differences(run: Run[Any], name: str, covers: Covering, matrix: Tensor, windows: int, chunk: int) -> Tensor:
    """score(x) − score(x with window w covered): (windows, N, T).

    Args:
        run: Its score is settled.
        name: The input that is covered.
        covers: Of that input.
        matrix: (N, K), of the inputs as they are.
        windows: How many the lattice has.
        chunk: Covered examples per forward; windows and examples run through one another.
    """
    count, clean = len(run.inputs), run.clean
    assert clean is not None  # beside the score that is settled
    pairs = upload(np.stack(np.divmod(np.arange(windows * count), count)), clean.device)

    def found(forward: Forward) -> Tensor:
        wide = torch.promote_types(clean.dtype, torch.float32)
        deltas = clean.new_empty((windows * count, clean.shape[1]), dtype=wide)

        def work(part: Sequence[int]) -> None:
            rows = slice(part[0], part[-1] + 1)
            at, examples = pairs[:, rows]
            scores = forward(beside(run, name, covers.of(at, examples), examples), examples)
            deltas[rows] = (clean[examples] - scores).to(deltas.dtype)

        with run.progress(len(deltas), "window") as advance:
            run.note("windows_per_forward", in_parts(range(len(deltas)), chunk, work, advance))
        return deltas.view(windows, *clean.shape)

    return forwarding(run, matrix, windows * count, found)
