"""Gradient attention as a row that is carried from the last layer to the first, all targets from one forward."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.inputs.inputs import Inputs
from attribution.technique import Maps
from attribution.techniques.attention.family import Reading
from attribution.techniques.attention.gradient_attention import GradientAttention
from attribution_hooks.attention.weights import bytes_of, fused, gradients, read, start, weights


class HooksGradientAttention(Attributor[GradientAttention]):
    """`GradientAttention` from one forward, and one backward for each target to the first attention."""

    technique_type: ClassVar[type[GradientAttention]] = GradientAttention
    backend: ClassVar[str] = "hooks"

    def image_bytes(self, model: nn.Module, technique: GradientAttention, inputs: Inputs) -> int:
        """The forward's graph with all weights, and one target's gradients."""
        weighed = bytes_of(model, technique, inputs, heads=True, copies=4)
        return layers.graph_bytes(model, inputs) + 2 * layers.peak_bytes(model, inputs) + weighed

    def compute(self, run: Run[GradientAttention]) -> Maps:
        """(N, T, h, w) of the input."""
        rows, reading = list[Tensor](), read(run)
        with torch.enable_grad(), weights(run, None) as found:
            columns = run.scores(run.forward(run.inputs)).unbind(1)
            found.done, kept = True, found.values()
            for t, column in enumerate(columns):
                slopes = gradients(column, kept, keep=t + 1 < len(columns))
                with torch.no_grad():
                    pairs = zip(slopes, kept, strict=True)
                    chain = [fused(found.by_head((g * x).relu()), run.technique) for g, x in pairs]
                    rows.append(_row(reading, chain))
        return {run.inputs.key(run.inputs.explained[0]): reading.placed(torch.stack(rows, dim=1))}


def _row(reading: Reading, chain: list[Tensor]) -> Tensor:
    """(N, keys): of R − I, without the matrix. I is never added, beside which small weights would be rounded away."""
    row = start(reading, chain[-1])
    moved = torch.zeros_like(row)
    for matrix in reversed(chain):
        passed = torch.bmm((row + moved).unsqueeze(1), matrix)[:, 0]
        if matrix.shape[1] == 1:  # pooled: no residual connection beside it
            row, moved = torch.zeros_like(passed), passed
        else:
            moved = moved + passed
    return moved
