"""Lowered networks beside their models at batch 8: ``uv run python -m benchmarks.lowered``, on an idle machine.

Prints a table of ratios of interleaved forwards in one process, and whether any is below 0.97. Five minutes.
"""

import argparse
from functools import partial
from time import perf_counter

import numpy as np
import torch
from torch import nn
from torchvision import models

from attribution.lowered.network import lower
from attribution.lowered.tracing import Untraceable
from benchmarks.clock import interval, timed
from benchmarks.families import NETS, family

GOALS = {"resnet50": 1.2, "vgg16": 1.2, "mobilenet_v2": 1.8}
LEAST = 0.97


def main() -> None:
    """Measure and print."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--pixels", type=int, default=224)
    asked.add_argument("--batch", type=int, default=8)
    asked.add_argument("--pairs", type=int, default=7)
    asked.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked.add_argument("nets", nargs="*", default=[*GOALS, *(name for name in NETS if name not in GOALS)])
    given = asked.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{given.pixels} px, batch {given.batch}, {given.threads} threads, torch {torch.__version__}\n")
    print("| net | times as fast | 95 % | goal | made in, s | off by |\n|---|---|---|---|---|---|", flush=True)
    for name in given.nets:
        model = models.get_model(name).eval() if name in GOALS else family(name)
        row(name, model, given.pixels, given.batch, given.pairs)


def row(name: str, model: nn.Module, pixels: int, batch: int, pairs: int) -> None:
    """Print how many times as long the model takes as its network."""
    x = torch.randn(batch, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        begun = perf_counter()
        try:
            network = lower(model)
        except Untraceable as reason:
            print(f"| {name} | runs itself: {reason} | | | {perf_counter() - begun:.2f} | |", flush=True)
            return
        made = perf_counter() - begun
        wanted, found = model(x), network(x)
        off = float((found - wanted).abs().max() / wanted.abs().max())
        ratios = []
        for pair in range(pairs):
            order = (model, network) if pair % 2 else (network, model)
            first, second = (timed(partial(call, x), "cpu") for call in order)
            ratios.append(first / second if pair % 2 else second / first)
    low, high = interval(np.array(ratios))
    goal = GOALS.get(name, LEAST)
    missed = "" if np.median(ratios) >= goal else ", missed"
    print(f"| {name} | {np.median(ratios):.2f} | {low:.2f} to {high:.2f} | {goal}{missed} | {made:.2f} | {off:.1e} |",
          flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
