"""Occlusion sensitivity by Captum's ``Occlusion``."""

from typing import ClassVar

import torch
from captum.attr import Occlusion as CaptumOcclusionMethod
from torch import Tensor

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.technique import Maps
from attribution.techniques import Occlusion
from attribution_captum.layer import typed


class CaptumOcclusion(Attributor[Occlusion]):
    """`Occlusion` by one call of Captum's class per target; Captum folds in float32 whatever it is given."""

    technique_type: ClassVar[type[Occlusion]] = Occlusion
    backend: ClassVar[str] = "captum"
    computes_in: ClassVar[torch.dtype | None] = torch.float32

    def compute(self, run: Run) -> Maps:
        """(N, T, H, W) under ``"input"``, on the lattice that Captum lays itself."""
        technique, inputs = self.technique, run.inputs
        with torch.no_grad(), layers.record(run.model) as stops:
            target = run.select(run.forward(inputs))
        lattice = technique.lattice(*inputs.shape[2:])
        height, width = lattice.extent
        size = len(inputs) * (6 * inputs[0].numel() * inputs.element_size() + layers.peak_bytes(stops, len(inputs)))
        chunk = run.execution.chunk(size, len(lattice.windows))
        run.note("engine", "captum.Occlusion")
        run.note("windows", len(lattice.windows))
        run.note("windows_per_forward", chunk)
        forwards = target.shape[1] * (1 + -(-len(lattice.windows) // chunk))
        total = torch.zeros(
            (len(inputs), target.shape[1], *inputs.shape[2:]), dtype=torch.float32, device=inputs.device
        )
        with torch.no_grad(), typed(), run.progress(forwards, "forward") as advance:

            def score(covered: Tensor) -> Tensor:
                copies = len(covered) // len(inputs)
                images = inputs.repeat(copies, 1, 1, 1)
                images[..., :height, :width] = covered
                advance()
                return technique.scores(run.forward(images))

            method = CaptumOcclusionMethod(score)
            for t in range(target.shape[1]):
                map_ = method.attribute(
                    inputs[..., :height, :width],
                    sliding_window_shapes=(inputs.shape[1], *technique.size),
                    strides=(inputs.shape[1], *technique.step),
                    baselines=technique.cover(inputs),
                    target=target[:, t],
                    perturbations_per_eval=chunk,
                )
                total[:, t, :height, :width] = map_[:, 0]
        return {"input": total}
