"""Attention weights of one query, from a forward that keeps nothing else."""

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.inputs.inputs import Inputs
from attribution.technique import Maps
from attribution.techniques.attention.attention import Attention
from attribution.techniques.attention.family import Reading
from attribution_hooks.attention.weights import fused, read, weights


class HooksAttention(Attributor[Attention]):
    """`Attention` from one forward, whatever the number of layers."""

    technique_type: ClassVar[type[Attention]] = Attention
    backend: ClassVar[str] = "hooks"

    def image_bytes(self, model: nn.Module, technique: Attention, inputs: Inputs) -> int:
        """What is widest in a forward without graph, where attention may be wider than the outputs of modules."""
        asked = layers.attentions(model, inputs).layers
        widest = max(each.heads * each.queries * each.keys for each in asked) * inputs.first.element_size()
        return 2 * max(layers.peak_bytes(model, inputs), widest)

    def compute(self, run: Run[Attention]) -> Maps:
        """(N, 1, h, w) for each layer."""
        reading = read(run)
        with torch.no_grad(), weights(run, partial(_row, run.technique, reading)) as found:
            run.forward(run.inputs)
        rows = zip(run.technique.layers, found.values(), strict=True)
        return {name: reading.placed(row).unsqueeze(1) for name, row in rows}


def _row(technique: Attention, reading: Reading, given: Tensor) -> Tensor:
    """(N, heads, queries, keys) → (N, keys)."""
    if reading.query == "mean":
        return fused(given[:, :, reading.leading :], technique).mean(dim=1)
    return fused(given[:, :, reading.query], technique).clone()
