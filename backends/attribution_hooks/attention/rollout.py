"""Attention rollout as a row that is carried from the last layer to the first: no product of matrices is formed."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.inputs.inputs import Inputs
from attribution.technique import Maps
from attribution.techniques.attention.rollout import AttentionRollout
from attribution_hooks.attention.weights import bytes_of, fused, read, start, weights


class HooksAttentionRollout(Attributor[AttentionRollout]):
    """`AttentionRollout` from one forward; of each layer one matrix is kept, and multiplied by one row."""

    technique_type: ClassVar[type[AttentionRollout]] = AttentionRollout
    backend: ClassVar[str] = "hooks"

    def image_bytes(self, model: nn.Module, technique: AttentionRollout, inputs: Inputs) -> int:
        """What is widest in a forward without graph, and the matrices."""
        return 2 * layers.peak_bytes(model, inputs) + bytes_of(model, technique, inputs, heads=False, copies=2)

    def compute(self, run: Run[AttentionRollout]) -> Maps:
        """(N, 1, h, w) of the input."""
        reading = read(run)
        with torch.no_grad(), weights(run, partial(fused, technique=run.technique)) as found:
            run.forward(run.inputs)
        with torch.no_grad():
            matrices = found.values()
            row = carried(start(reading, matrices[-1]), matrices)
        return {run.inputs.key(run.inputs.explained[0]): reading.placed(row).unsqueeze(1)}


def carried(row: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """The row times Â_L · … · Â_1, (N, keys): of L keys an L-th part of the operations that the matrices take.

    Args:
        row: (N, queries) of the last layer.
        matrices: A (N, queries, keys) of each layer, in the order in which they run.
    """
    found = row.unsqueeze(1)
    for matrix in reversed(matrices):
        total = matrix.sum(dim=2).unsqueeze(1)
        if matrix.shape[1] == 1:  # pooled: no residual connection beside it
            found = matrix / total
            continue
        found = found / (1 + total)
        found = torch.baddbmm(found, found, matrix)
    return found[:, 0]
