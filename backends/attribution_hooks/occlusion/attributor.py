"""``HooksOcclusion``: clean scores, one difference per window, folded to pixels once."""

from typing import ClassVar

import torch

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.execution import CPU_WINDOWS
from attribution.technique import Maps
from attribution.techniques import Occlusion
from attribution_hooks.occlusion.dense import differences, fold


class HooksOcclusion(Attributor[Occlusion]):
    """`Occlusion` with every target from the same forwards; sums in at least float32."""

    technique_type: ClassVar[type[Occlusion]] = Occlusion
    backend: ClassVar[str] = "hooks"

    def compute(self, run: Run) -> Maps:
        """(N, T, H, W) under ``"input"``."""
        technique, inputs = self.technique, run.inputs
        lattice = technique.lattice(*inputs.shape[2:])
        with torch.no_grad():
            logits = run.forward(inputs)
            target = run.select(logits)
            clean = technique.scores(logits).gather(1, target)
            size = inputs[0].numel() * inputs.element_size() * 2 + layers.peak_bytes(run.model, inputs)
            most = CPU_WINDOWS if inputs.device.type == "cpu" else None
            chunk = run.execution.chunk(size, len(lattice.windows) * len(inputs), most=most)
            deltas = differences(run, technique, lattice, clean, target, chunk)
        run.note("engine", "dense")
        run.note("windows", len(lattice.windows))
        run.note("windows_per_forward", chunk)
        return {"input": fold(deltas, lattice, tuple(inputs.shape[2:]))}
