"""Plans against brute force: what a window changes is pushed through every op, place by place or as NaN."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest
from torch import nn
from torchvision import models

from attribution import Occlusion
from attribution.techniques.perturbation.lattice import Interval, Lattice
from attribution.testing import small_cnn, small_depthwise, small_residual
from attribution_hooks.incremental import plan as planning
from attribution_hooks.incremental.plan import DENSE_FROM, SLACK, Op, Plan, reach
from tests.backends.occlusion.reached import changed_by, off

Reach = Callable[[Sequence[Op], int, Interval], list[Interval]]

SIZES = (7, 10)
LATTICES = (
    Lattice((((0, 1), (5, 8), (16, 17)), ((0, 3), (9, 10), (20, 23)))),
    Occlusion(window=5, stride=3).lattice(17, 23),
    Occlusion(window=(1, 4), stride=(1, 3)).lattice(17, 23),
)


def chain(size: int, kernel: int, stride: int, dilation: int, padding: int, after: int, *, ceil: bool) -> list[Op]:
    """An image and one op; the same along both axes."""
    spare = size + padding + after - dilation * (kernel - 1) - 1
    out = (-(-spare // stride) if ceil else spare // stride) + 1
    if ceil and (out - 1) * stride >= size + padding:  # torch starts no window in the padding behind
        out -= 1
    sides = ((kernel, kernel), (stride, stride), (dilation, dilation), (padding, padding))
    return [Op((), (size, size)), Op((0,), (out, out), 1, *sides)]


CHAINS = [
    chain(size, kernel, stride, dilation, padding, padding + extra, ceil=ceil)
    for size, kernel, stride, dilation in product(SIZES, (1, 2, 3, 5), (1, 2, 3, 4), (1, 2))
    for padding, extra, ceil in product((0, 1, 2), (0, 1), (False, True))
    if padding <= dilation * (kernel - 1) and size + 2 * padding > dilation * (kernel - 1)
]


def touched(op: Op, changed: Interval) -> list[int]:
    """Outputs of a single op along rows that read a changed place."""
    return [
        out
        for out in range(op.size[0])
        if any(
            changed[0] <= out * op.stride[0] - op.padding[0] + tap * op.dilation[0] < changed[1]
            for tap in range(op.kernel[0])
        )
    ]


def wrong_on_chains(under_test: Reach) -> list[tuple[list[Op], Interval]]:
    """Chains and intervals where a reach is not the brute force's.

    Wider than the dilation, a changed interval meets every gap between taps, and the reach is exact; else it covers.
    """
    found = []
    for ops, low in product(CHAINS, range(max(SIZES))):
        for high in range(low + 1, ops[0].size[0] + 1):
            image, (start, stop) = under_test(ops, 0, (low, high))
            hits = touched(ops[1], (low, high))
            good = image == (low, high) and 0 <= start < stop <= ops[1].size[0]
            if not hits:
                good = good and (stop - start == 1 or ops[1].dilation[0] > 1)
            elif high - low >= ops[1].dilation[0]:
                good = good and (start, stop) == (hits[0], hits[-1] + 1)
            else:
                good = good and start <= hits[0] and hits[-1] < stop
            if not good:
                found.append((ops, (low, high)))
    return found


def spread(ops: Sequence[Op], lattice: Lattice) -> list[np.ndarray]:
    """For each op a boolean map (windows, height, width) of what each window changes."""
    found: list[np.ndarray] = []
    for op in ops:
        if not op.inputs:
            image = np.zeros((len(lattice.windows), *op.size), dtype=bool)
            for row, ((top, bottom), (left, right)) in enumerate(lattice.windows):
                image[row, top:bottom, left:right] = True
            found.append(image)
            continue
        source = np.zeros_like(found[op.inputs[0]])
        for index in op.inputs:
            source |= found[index]
        (up, left), (down, right) = op.padding, op.stride
        far = [
            (n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(op.size, op.stride, op.dilation, op.kernel, strict=True)
        ]
        behind = [max(0, f - p - n) for f, p, n in zip(far, op.padding, source.shape[1:], strict=True)]
        wide = np.pad(source, ((0, 0), (up, behind[0]), (left, behind[1])))
        output = np.zeros((len(source), *op.size), dtype=bool)
        for i, j in product(range(op.kernel[0]), range(op.kernel[1])):
            r, c = i * op.dilation[0], j * op.dilation[1]
            output |= wide[:, r : r + (op.size[0] - 1) * down + 1 : down, c : c + (op.size[1] - 1) * right + 1 : right]
        found.append(output)
    return found


def faults(plan: Plan, changed: Sequence[np.ndarray]) -> list[str]:
    """Everything about a plan that is not so, given what each window really changes."""
    found, seen = [], []
    columns = len(plan.lattice.columns)
    for group in plan.groups:
        rows = [row * columns + column for row, column in group.windows]
        seen += rows
        for index, op in enumerate(plan.ops):
            (tall, wide), (tops, lefts) = group.shapes[index], group.starts(index)
            widths = group.rows.width[index] * group.columns.width[index]
            whole = widths >= DENSE_FROM * op.size[0] * op.size[1] or any(group.whole[i] for i in op.inputs)
            if group.whole[index] != whole or (whole and (tall, wide) != op.size):
                found.append(f"op {index}: whole is {group.whole[index]}, {tall} x {wide} of {op.size}")
            for row, top, left in zip(rows, tops, lefts, strict=True):
                if not (0 <= top <= top + tall <= op.size[0] and 0 <= left <= left + wide <= op.size[1]):
                    found.append(f"op {index}, window {row}: the tile leaves the map")
                outside = changed[index][row].copy()
                outside[max(top, 0) : top + tall, max(left, 0) : left + wide] = False
                if outside.any():
                    found.append(f"op {index}, window {row}: changed outside of the tile")
    if sorted(seen) != list(range(len(plan.lattice.windows))):
        found.append("windows are left out, or in two groups")
    return found


def areas(plan: Plan) -> int:
    """The floor as it is defined, window by window."""
    total = plan.rest * len(plan.lattice.windows)
    for row, column in plan.lattice.windows:
        tall, wide = reach(plan.ops, 0, row), reach(plan.ops, 1, column)
        total += sum(op.macs * (b - a) * (d - c) for op, (a, b), (c, d) in zip(plan.ops, tall, wide, strict=True))
    return total


def branching(seed: int) -> list[Op]:
    """A random network on (17, 23): convolutions of all sorts, branches of equal size that join again."""
    draw = np.random.default_rng(seed)
    ops = [Op((), (17, 23))]
    for _ in range(7):
        size, source = ops[-1].size, len(ops) - 1
        kernel, dilation = ((int(a), int(b)) for a, b in draw.integers((1, 1), (4, 3), size=(2, 2)))
        halo = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        before = (int(draw.integers(halo[0] + 1)), int(draw.integers(halo[1] + 1)))
        same = Op((source,), size, 3, kernel, (1, 1), dilation, before)  # SAME, the padding anyhow split
        ops += [same, Op((source,), size, 2), Op((source + 1, source + 2), size, 0)]
        stride = tuple(int(s) for s in draw.integers(1, 4, size=2))
        smaller = (-(-size[0] // stride[0]), -(-size[1] // stride[1]))
        if min(smaller) >= 3:
            ops.append(Op((len(ops) - 1,), smaller, 5, (int(draw.integers(1, 4)), 1), (stride[0], stride[1])))
    return ops


def test_reach_is_exact_for_every_kind_of_op() -> None:
    assert len(CHAINS) > 300
    assert wrong_on_chains(reach) == []


def altered(change: Callable[[int, int], Interval]) -> Reach:
    def mutant(ops: Sequence[Op], axis: int, changed: Interval) -> list[Interval]:
        found = zip(ops, reach(ops, axis, changed), strict=True)
        return [change(*interval) if op.inputs else interval for op, interval in found]

    return mutant


late = altered(lambda low, high: (min(low + 1, high - 1), high))
short = altered(lambda low, high: (low, max(high - 1, low + 1)))
generous = altered(lambda low, high: (max(low - 1, 0), high))


def unclipped(ops: Sequence[Op], axis: int, changed: Interval) -> list[Interval]:
    return reach([Op(**{**vars(op), "size": (10**6, 10**6)}) for op in ops], axis, changed)


def without_halo(ops: Sequence[Op], axis: int, changed: Interval) -> list[Interval]:
    return reach([Op(**{**vars(op), "kernel": (1, 1)}) for op in ops], axis, changed)


@pytest.mark.parametrize("mutant", [late, short, generous, unclipped, without_halo])
def test_a_wrong_reach_is_caught(mutant: Reach) -> None:
    assert wrong_on_chains(mutant) != []


@pytest.mark.parametrize("lattice", LATTICES, ids=["borders", "square", "thin"])
@pytest.mark.parametrize("seed", range(12))
def test_plans_of_branching_networks_cover_what_windows_change(seed: int, lattice: Lattice) -> None:
    plan = Plan.of(branching(seed), lattice, 1000)
    assert faults(plan, spread(plan.ops, lattice)) == []
    assert plan.floor == areas(plan) <= plan.executed <= plan.dense


@pytest.mark.parametrize("mutant", [late, short, without_halo])
def test_a_plan_from_a_wrong_reach_is_caught(mutant: Reach, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "reach", mutant)
    plans = [Plan.of(branching(seed), LATTICES[1], 0) for seed in range(4)]
    assert any(faults(plan, spread(plan.ops, LATTICES[1])) for plan in plans)


def test_tiles_of_the_exact_size_cost_at_most_the_slack_more_along_each_axis() -> None:
    """Without the rule for whole maps, shared shapes are all that is lost."""
    lattice = Occlusion(window=40, stride=20).lattice(224, 224)
    ops, size = [Op((), (224, 224))], 224
    for _ in range(4):
        size //= 2
        ops.append(Op((len(ops) - 1,), (size, size), 9, (3, 3), (2, 2), (1, 1), (1, 1)))
    plan = Plan.of(ops, lattice, 0)
    assert not any(group.whole[-1] for group in plan.groups)
    assert plan.floor < plan.executed <= (1 + SLACK) ** 2 * plan.floor * 1.001
    assert len(plan.groups) < len(lattice.windows) / 4


REAL: dict[str, tuple[Callable[[], nn.Module], Lattice]] = {
    "small_cnn": (small_cnn, Occlusion(window=5, stride=3).lattice(17, 23)),
    "small_residual": (small_residual, Occlusion(window=5, stride=3).lattice(17, 23)),
    "small_depthwise": (small_depthwise, Occlusion(window=5, stride=3).lattice(17, 23)),
    "squeezenet1_1": (models.squeezenet1_1, Occlusion(window=(9, 14), stride=(9, 13)).lattice(53, 67)),
    "resnet18": (models.resnet18, Occlusion(window=(9, 14), stride=(9, 13)).lattice(53, 67)),
    "densenet121": (models.densenet121, Occlusion(window=(19, 17), stride=(18, 17)).lattice(55, 67)),
}


@pytest.mark.parametrize("name", REAL)
def test_real_networks_change_where_the_plan_says(name: str) -> None:
    build_model, lattice = REAL[name]
    ops, changed = changed_by(build_model(), lattice)
    assert len(ops) > 4
    assert off(ops, lattice, changed) == []
    plan = Plan.of(ops, lattice, 10)
    assert faults(plan, changed) == []
    assert plan.floor == areas(plan) <= plan.executed
