"""Layers as the plan sees them: each reads what NaN says it reads."""

import pytest
from torch import nn

from attribution import Occlusion
from attribution_hooks.incremental.plan import Op
from tests.backends.occlusion.reached import changed_by, off


def layers() -> dict[str, nn.Module]:
    """One layer of every sort that reads a neighbourhood, and one that SAME pads more behind than before."""
    return {
        "stride larger than kernel": nn.Conv2d(3, 4, 2, stride=3),
        "kernel 1, stride 2": nn.Conv2d(3, 4, 1, stride=2),
        "grouped": nn.Conv2d(3, 6, (3, 2), stride=(1, 2), padding=(1, 0), groups=3),
        "dilated": nn.Conv2d(3, 4, 3, dilation=(2, 3), padding=(2, 1)),
        "same, even": nn.Conv2d(3, 4, (4, 2), padding="same"),
        "padded": nn.ZeroPad2d((1, 2, 0, 3)),
        "max": nn.MaxPool2d(3, 2, 1),
        "max, ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
        "max, ceil, padded": nn.MaxPool2d((2, 3), (2, 3), (1, 1), ceil_mode=True),
        "max, dilated": nn.MaxPool2d(3, 2, 1, dilation=2),
        "average": nn.AvgPool2d((3, 2), (2, 1), (1, 0)),
        "average, ceil": nn.AvgPool2d(3, 2, ceil_mode=True),
    }


def _alone(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("name", layers())
def test_layers_are_read_as_ops(name: str) -> None:
    lattice = Occlusion(window=(4, 5), stride=3).lattice(17, 23)
    ops, changed = changed_by(_alone(layers()[name]), lattice)
    assert len(ops) == 3
    assert off(ops, lattice, changed) == []


def test_an_op_that_reads_too_little_is_caught() -> None:
    lattice = Occlusion(window=(4, 5), stride=3).lattice(17, 23)
    ops, changed = changed_by(_alone(layers()["grouped"]), lattice)
    mutant = [*ops[:1], Op(**{**vars(ops[1]), "padding": (0, 0)}), *ops[2:]]
    assert off(mutant, lattice, changed) != []


def test_macs_per_pixel_are_the_layers_own() -> None:
    ops = {
        name: changed_by(_alone(layer), Occlusion(window=5, stride=3).lattice(17, 23))[0][1].macs
        for name, layer in layers().items()
    }
    assert (ops["stride larger than kernel"], ops["grouped"], ops["max"]) == (48, 36, 0)
