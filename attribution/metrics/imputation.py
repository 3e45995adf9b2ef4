"""Removed places as weighted means of their neighbours: the linear imputation of ROAD, solved by multigrid."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Offsets of four neighbours; the other four are their reverses."""

_WEIGHTS = (1 / 6, 1 / 6, 1 / 12, 1 / 12)
_DIRECT = 256
"""Unknowns of a level that is solved directly."""

_DAMPING = 0.7
_OVER = 1.5
"""A correction that is constant in each block of 2 × 2 is too small by about this factor."""

_ROUNDS = {torch.float64: 20}
_ROUNDS_BELOW = 8
"""Steps of conjugate gradients. Each makes the error about 5 times smaller, whatever the size: float32 reaches its own
rounding in 6, float64 in 18. A constant, so that a photo's result depends on no other."""


def impute(x: Tensor, gone: Tensor) -> Tensor:
    """Replace places by the solution of u_i Σ_j w_ij = Σ_j w_ij u_j, j over the 8 neighbours inside the image.

    w is 1/6 for the neighbours along an axis and 1/12 for the diagonal ones; u is given where nothing is gone. So a
    constant stays constant, and a linear ramp stays a ramp where what is gone does not touch the border. An image of
    which everything is gone becomes the mean of each channel.

    Args:
        x: (R, C, H, W), finite.
        gone: (R, 1, H, W), bool.

    Returns:
        Of the shape and dtype of ``x``, which is solved in float64, or in float32 where it is narrower.

    Source: Y. Rong et al., *A Consistent and Efficient Evaluation Strategy for Attribution Methods*, ICML 2022,
    section 4.2 and appendix.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    middle = wide.mean(dim=(2, 3), keepdim=True)
    unknown = gone.to(wide.dtype)
    whole = _Level(torch.zeros_like(wide[:1, :1]), [torch.full_like(wide[:1, :1], weight) for weight in _WEIGHTS])
    sums = -whole.applied(torch.ones_like(wide[:1, :1]))
    inner = [whole.edges[k] * unknown * _shifted(unknown, offset) for k, offset in enumerate(NEIGHBOURS)]
    found = _solved(_Levels(_Level(sums * unknown, inner)), -whole.applied((wide - middle) * (1 - unknown)) * unknown)
    return torch.where(gone, (found + middle).to(x.dtype), x)


@dataclass(frozen=True, eq=False)
class _Level:
    """A symmetric operator of 9 points: (A u)_i = diagonal_i u_i − Σ edge_ij u_j.

    Attributes:
        diagonal: (R, 1, H, W); 0 where there is no unknown.
        edges: By `NEIGHBOURS`, (R, 1, H, W): between a place and its neighbour at that offset.
    """

    diagonal: Tensor
    edges: Sequence[Tensor]

    @cached_property
    def inverse(self) -> Tensor:
        """Of the diagonal, damped."""
        some = self.diagonal > 0
        return torch.where(some, _DAMPING / torch.where(some, self.diagonal, 1), 0)

    def applied(self, u: Tensor) -> Tensor:
        """A u."""
        found = self.diagonal * u
        for offset, edge in zip(NEIGHBOURS, self.edges, strict=True):
            here, there = _pair(offset, u.shape)
            weights = edge[here]
            found[here] -= weights * u[there]
            found[there] -= weights * u[here]
        return found

    def coarser(self) -> "_Level":
        """Of corrections that are constant in blocks of 2 × 2."""
        diagonal = _blocks(self.diagonal).sum(dim=(3, 5))
        edges = [torch.zeros_like(diagonal) for _ in NEIGHBOURS]
        for (down, right), edge in zip(NEIGHBOURS, self.edges, strict=True):
            blocks = _blocks(edge)
            for i in range(2):
                for j in range(2):
                    weights, block = blocks[:, :, :, i, :, j], ((i + down) // 2, (j + right) // 2)
                    if block == (0, 0):
                        diagonal = diagonal - 2 * weights
                    elif block in NEIGHBOURS:
                        edges[NEIGHBOURS.index(block)] += weights
                    else:  # to the left, which the block there counts
                        edges[0][..., :-1] += weights[..., 1:]
        return _Level(diagonal, edges)


class _Levels:
    """One W-cycle of multigrid, which is nearly A⁻¹."""

    def __init__(self, top: _Level) -> None:
        self._levels = [top]
        while self._levels[-1].diagonal[0].numel() > _DIRECT:
            self._levels.append(self._levels[-1].coarser())
        last = self._levels[-1].diagonal
        count = last[0].numel()
        unit = torch.eye(count, dtype=last.dtype, device=last.device)
        matrix = self._levels[-1].applied(unit.reshape(1, count, *last.shape[2:]).expand(len(last), -1, -1, -1))
        flat = last.flatten(1)
        # Where there is no unknown, and where rounding leaves nothing of the diagonal, some is added.
        more = torch.where(flat > 0, 1e-5 * flat, 1)
        self._factor = torch.linalg.cholesky_ex(matrix.flatten(2) + torch.diag_embed(more)).L
        self.top = top

    def __call__(self, rest: Tensor, k: int = 0) -> Tensor:
        """About A⁻¹ of what is left, at level ``k``."""
        level = self._levels[k]
        if k == len(self._levels) - 1:
            return torch.cholesky_solve(rest.flatten(2).mT, self._factor).mT.reshape(rest.shape)
        found = level.inverse * rest
        below = _blocks(rest - level.applied(found)).sum(dim=(3, 5))
        step = self(below, k + 1)
        if k + 2 < len(self._levels):
            step = step + self(below - self._levels[k + 1].applied(step), k + 1)
        wide = step.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., : rest.shape[2], : rest.shape[3]]
        found = found + _OVER * wide * (level.diagonal > 0)
        return found + level.inverse * (rest - level.applied(found))


def _solved(levels: _Levels, rest: Tensor) -> Tensor:
    """A⁻¹ of (R, C, H, W) by conjugate gradients, each channel by itself."""

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(dim=(2, 3), keepdim=True)

    found, step = torch.zeros_like(rest), levels(rest)
    way, size = step, dot(rest, step)
    for _ in range(_ROUNDS.get(rest.dtype, _ROUNDS_BELOW)):
        along = levels.top.applied(way)
        bend = dot(way, along)
        far = torch.where(bend > 0, size / torch.where(bend > 0, bend, 1), 0)
        found, rest = found + far * way, rest - far * along
        step = levels(rest)
        now = dot(rest, step)
        way = step + torch.where(size > 0, now / torch.where(size > 0, size, 1), 0) * way
        size = now
    return found


def _pair(offset: tuple[int, int], shape: Sequence[int]) -> tuple[Any, Any]:
    """Where places lie that have a neighbour at an offset, and where these neighbours lie."""
    here, there = [], []
    for step, size in zip(offset, shape[-2:], strict=True):
        here.append(slice(max(0, -step), size - max(0, step)))
        there.append(slice(max(0, step), size - max(0, -step)))
    return (..., *here), (..., *there)


def _shifted(values: Tensor, offset: tuple[int, int]) -> Tensor:
    """The value of the neighbour at an offset; 0 outside."""
    found, (here, there) = torch.zeros_like(values), _pair(offset, values.shape)
    found[here] = values[there]
    return found


def _blocks(values: Tensor) -> Tensor:
    """(R, C, H, W) → (R, C, ⌈H/2⌉, 2, ⌈W/2⌉, 2), padded with zeros."""
    height, width = values.shape[2:]
    padded = F.pad(values, (0, width % 2, 0, height % 2))
    return padded.reshape(*values.shape[:2], (height + 1) // 2, 2, (width + 1) // 2, 2)
