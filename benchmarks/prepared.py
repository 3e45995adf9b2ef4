"""Activations inside of ``attribution.prepared`` beside the bare forward up to the layer.

``uv run python -m benchmarks.prepared`` on an idle machine, about two minutes; ``--pixels 64 --pairs 2`` to rehearse.
Prints a table of ratios of interleaved runs in one process, ours / bare, with 95 % bootstrap intervals.
"""

import argparse
from functools import partial

import torch

from attribution import Activations, explain, prepared
from benchmarks.clock import race
from benchmarks.models import SUBJECTS
from benchmarks.peers.floor import truncated
from benchmarks.peers.peer import own

GOALS = {("ResNet-50", "layer1"): 1.06, ("SqueezeNet 1.1", "features.12"): 1.06, ("SqueezeNet 1.1", "features.3"): 1.10}
"""Model and layer → how many times the bare forward a call may take."""


def main() -> None:
    """Measure and print."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--pixels", type=int, default=224)
    asked.add_argument("--pairs", type=int, default=21)
    given = asked.parse_args()
    x = torch.randn(1, 3, given.pixels, given.pixels, generator=torch.Generator().manual_seed(0))
    print(f"{given.pixels} px, {torch.get_num_threads()} threads, torch {torch.__version__}, {given.pairs} pairs\n")
    print("| model | layer | prepared / bare | goal | each call by itself / bare |\n|---|---|---|---|---|", flush=True)
    for (name, layer), goal in GOALS.items():
        model = SUBJECTS[name].build()
        ours, bare = partial(explain, model, x, Activations(layers=(layer,))), truncated(own(model), layer, x)
        ratios = []
        for inside in (True, False):
            with prepared(model) if inside else torch.no_grad():
                ours()
                bare()
                canary = partial(model, x)
                found = race(bare, ours, against="attribution", canary=canary, device="cpu", pairs=given.pairs)
            ratios.append(f"{found.ratio:.3f} [{found.low:.3f}, {found.high:.3f}]")
        print(f"| {name} | {layer} | {ratios[0]} | {goal} | {ratios[1]} |", flush=True)


if __name__ == "__main__":
    main()
