"""``python -m benchmarks.removal``: curves of removal against torch-cam's metric, and Quantus' pixel flipping.

One map of each photo, SqueezeNet 1.1 at 224 × 224, baseline 0, interleaved pairs in one process: about two minutes on
an idle machine. torch-cam takes as many forwards as we do, which is checked, and its areas must be ours before anything
is timed. It is given its default batch of 32, and with ``--batch`` another.

``--with quantus``: Quantus flips one value in a step by default, which is 150,528 forwards a photo. It is timed with 48
steps, each a forward of all photos, and that time is multiplied; what it does once is multiplied too, which is a
forward, or 2 %. Its area, which fails on NumPy 2.4, is not asked.
"""

import argparse
import importlib
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from attribution.metrics import Curves, removal_curves
from benchmarks.clock import Race, race, timed
from benchmarks.given_maps import GivenMaps

STEPS = 16
TARGET = 3
PART = 16
"""Quantus is timed with 1 / PART of the places' number of values in a step, which it must divide."""

SECONDS = 100
"""What all pairs against torch-cam may take."""


def main() -> None:
    """Print a line per peer that is asked and installed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=2)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--pairs", type=int, default=0, help="0: as many as fit a hundred seconds, at most 41")
    parser.add_argument("--batch", type=int, default=32, help="images in a forward of torch-cam's")
    parser.add_argument("--with", dest="also", action="append", default=[], choices=["quantus"])
    given = parser.parse_args()
    source = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = torchvision.models.squeezenet1_1(weights=None).eval()
    x = torch.randn(given.photos, 3, given.size, given.size, generator=source)
    maps = torch.rand(given.photos, 1, given.size, given.size, generator=source)

    def ours() -> Curves:
        asked: dict[str, Any] = {"baselines": (0.0,), "steps": STEPS, "cells": None, "target": TARGET}
        return removal_curves(model, x, {"map": maps}, **asked)["map"]

    def canary() -> object:
        with torch.no_grad():
            return model(x[:1])

    for peer in (torch_cam, *([quantus] if "quantus" in given.also else [])):
        try:
            other, scale, told = peer(model, x, maps, ours, given.batch)
        except ImportError as error:
            print(f"{peer.__name__}: not measured ({error})")
            continue
        pairs = given.pairs or max(5, min(41, int(SECONDS / (2 * timed(ours, "cpu")))))
        if peer is quantus:
            pairs = 3
        found: Race = race(
            ours, other, against=peer.__name__, canary=canary, device="cpu", pairs=pairs, other_scale=scale
        )
        noisy = ", noisy" if found.disturbed else ""
        print(
            f"{peer.__name__}: {found.ratio:.2f}× as fast [{found.low:.2f}, {found.high:.2f}] in {found.pairs} pairs"
            f"{noisy}, {found.seconds / len(x):.2f} s a photo against {found.against_seconds / len(x):.2f} s; {told}"
        )


def torch_cam(
    model: nn.Module, x: Tensor, maps: Tensor, ours: Callable[[], Curves], batch: int
) -> tuple[Callable[[], object], float, str]:
    """torch-cam's insertion and deletion, at as many steps."""
    theirs = importlib.import_module("torchcam.metrics")

    def run() -> dict[str, float]:
        given = GivenMaps(model, maps)
        metric = theirs.DeletionInsertionMetric(given, lambda logits: logits.softmax(1), steps=STEPS, batch_size=batch)
        metric.update(x, TARGET)
        summary: dict[str, float] = metric.summary()
        return summary

    seen: list[int] = []
    handle = model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    found = run()
    handle.remove()
    assert sum(seen) == len(x) * 2 * STEPS, f"torch-cam took {sum(seen)} forwards"
    assert abs(float(ours().deletion.mean()) - found["deletion_auc"]) < 1e-5
    assert abs(float(ours().insertion.mean()) - found["insertion_auc"]) < 1e-5
    return run, 1.0, f"{2 * STEPS} forwards a photo each, equal areas"


def quantus(
    model: nn.Module, x: Tensor, maps: Tensor, ours: Callable[[], Curves], batch: int
) -> tuple[Callable[[], object], float, str]:
    """Quantus' pixel flipping, scaled to its default of one value in a step."""
    theirs = importlib.import_module("quantus")
    images, labels = x.numpy(), torch.full((len(x),), TARGET).numpy()
    spread, together = maps.expand_as(x).numpy(), x.shape[2] * x.shape[3] // PART

    def run() -> object:
        metric = theirs.PixelFlipping(features_in_step=together, disable_warnings=True)
        return metric(model=model, x_batch=images, y_batch=labels, a_batch=spread, device="cpu")

    run()
    ours()
    return run, float(together), f"timed with {together} values in a step, scaled to its default of 1"


if __name__ == "__main__":
    main()
