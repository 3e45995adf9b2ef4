"""``HooksTokenOcclusion``: forwards of shorter sequences, and the proof that their order says nothing."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attribution.agreement import coarser, relative_tolerance
from attribution.attributor import Attributor, Run
from attribution.errors import LayerError
from attribution.isolation.torch_modes import devices_of, note_random
from attribution.isolation.undo import Undo
from attribution.running.upload import upload
from attribution.technique import Maps
from attribution.techniques import TokenOcclusion
from attribution.techniques.perturbation.lattice import Lattice
from attribution_hooks.chunks import in_parts, rows_at_once
from attribution_hooks.perturbation.clean import clean
from attribution_hooks.perturbation.fold import fold
from attribution_hooks.perturbation.sequences import Sequences

ROOM = 10
"""How many times the tolerance of two maps the logits of another order may be off, as a part of the largest."""


class HooksTokenOcclusion(Attributor[TokenOcclusion]):
    """`TokenOcclusion` with every target from the same forwards, each of windows that leave as many tokens.

    What stands before the first block runs in each forward. Where blocks are given positions beside their tokens, as
    with rotary embedding, they are given those of the tokens that stay, one window at a time.
    """

    technique_type: ClassVar[type[TokenOcclusion]] = TokenOcclusion
    backend: ClassVar[str] = "hooks"

    def compute(self, run: Run[TokenOcclusion]) -> Maps:
        """(N, T, h, w) of the input."""
        tokens = run.technique.grid(run.model, run.inputs)
        lattice, count, device = run.technique.lattice(tokens), len(run.inputs), run.inputs.device
        run.note("windows", len(lattice))
        run.note("tokens", f"{tokens[0]} + {' · '.join(map(str, tokens[1:]))}")
        restart = note_random(Undo(), devices_of(run.model, *run.inputs.tensors()))
        with torch.no_grad(), run.progress(len(lattice) * count, "window") as advance:
            chunk, sequences = rows_at_once(run, len(lattice) * count), Sequences(run, tokens)
            matrix = clean(run, chunk)
            restart()  # a model that draws shall draw the same again
            _check_order(run, sequences, matrix[:1], tokens)
            whole = run.clean
            assert whole is not None  # beside the score that is settled
            wide = torch.promote_types(whole.dtype, torch.float32)
            deltas = whole.new_empty((len(lattice), *whole.shape), dtype=wide)
            for windows, kept in _groups(lattice, tokens, apart=sequences.positions):
                pairs = upload(np.stack(np.divmod(np.arange(len(windows) * count), count)), device)

                def work(
                    part: Sequence[int], pairs: Tensor = pairs, windows: Tensor = windows, kept: Tensor = kept
                ) -> None:
                    at, examples = pairs[:, part[0] : part[-1] + 1]
                    scores = run.scores(sequences.forward(kept.to(device)[at], examples), examples)
                    deltas[windows.to(device)[at], examples] = (whole[examples] - scores).to(wide)

                chunk = in_parts(range(pairs.shape[1]), chunk, work, advance)
            return {run.inputs.key(run.inputs.explained[0]): fold(deltas, lattice, tokens[1:])}


def _groups(lattice: Lattice, tokens: tuple[int, ...], *, apart: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Windows (w,) that leave as many tokens, or one alone, and which tokens each leaves (w, n)."""
    leading, *places = tokens
    there = np.ones((len(lattice), *places), dtype=bool)
    for index, window in enumerate(lattice.windows):
        there[index][tuple(slice(begin, end) for begin, end in window)] = False
    rows = np.concatenate([np.ones((len(there), leading), dtype=bool), there.reshape(len(there), -1)], axis=1)
    counts = rows.sum(axis=1)
    groups = (
        [[index] for index in range(len(rows))] if apart else [np.flatnonzero(counts == n) for n in np.unique(counts)]
    )
    for group in map(np.asarray, groups):
        yield torch.from_numpy(group), torch.from_numpy(np.nonzero(rows[group])[1].reshape(len(group), -1))


def _check_order(run: Run[TokenOcclusion], sequences: Sequences, clean: Tensor, tokens: tuple[int, ...]) -> None:
    """The first example's tokens in another order have its scores, so that the network reads them as a set.

    From the end, first every other one, then those in between: positions in reverse order are as far from each other as
    before, and a network that knows of distances alone would answer the same.

    Raises:
        LayerError: They have not: to leave some out would move the others.
    """
    count, device = tokens[0] + int(np.prod(tokens[1:])), run.inputs.device
    leading, places = torch.arange(count, device=device).split([tokens[0], count - tokens[0]])
    order = torch.cat([leading, places.flip(0)[::2], places.flip(0)[1::2]])
    first = torch.zeros(1, dtype=torch.long, device=device)
    turned = run.matrix(sequences.forward(order[None], first), first)
    coarse = coarser(clean.dtype, run.execution.autocast)
    room = ROOM * relative_tolerance(coarse, host=device.type == "cpu") * clean.abs().nan_to_num(0.0, 0.0).amax()
    same = (turned == clean) | (turned.isnan() & clean.isnan())
    if not bool(torch.where(same, 0, turned - clean).abs().amax() <= room):  # NaN is no answer
        raise LayerError(
            f"what follows {sequences.entry!r} knows in which order its tokens come, so that to leave some out would "
            "move the others, or the tokens also go around it, as where a residual connection is outside of it; use "
            "Occlusion, which covers them"
        )
