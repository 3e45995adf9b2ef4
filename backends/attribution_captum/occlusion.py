"""Occlusion sensitivity by Captum's ``Occlusion``."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import ClassVar

import torch
from captum.attr import Occlusion as CaptumOcclusionMethod
from torch import Tensor

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.running.execution import CPU_WINDOWS, out_of_memory
from attribution.technique import Maps
from attribution.techniques import Occlusion
from attribution_captum.layer import typed

_COPIES = 6
"""Full-size copies of a batch that Captum holds beside the activations: masks, masked images, sums."""


class CaptumOcclusion(Attributor[Occlusion]):
    """`Occlusion` by one call of Captum's class per target; Captum folds in float32 whatever it is given."""

    technique_type: ClassVar[type[Occlusion]] = Occlusion
    backend: ClassVar[str] = "captum"
    computes_in: ClassVar[torch.dtype | None] = torch.float32

    def compute(self, run: Run[Occlusion]) -> Maps:
        """(N, T, H, W) under ``"input"``, on the lattice that Captum lays itself."""
        technique, inputs = run.technique, run.inputs.tensor
        lattice = technique.lattice(*inputs.shape[2:])
        height, width = lattice.extent
        image = _COPIES * inputs[0].numel() * inputs.element_size() + layers.peak_bytes(run.model, inputs)
        most = max(1, CPU_WINDOWS // len(inputs)) if inputs.device.type == "cpu" else None
        chunk = run.execution.chunk(len(inputs) * image, len(lattice.windows), most=most)
        run.note("engine", "captum.Occlusion")
        run.note("windows", len(lattice.windows))
        maps: list[Tensor] = []
        forwards = 1 + -(-len(lattice.windows) // chunk)  # of each target
        advances: list[Callable[[], None]] = []
        fits = [chunk * len(inputs)]
        with torch.no_grad(), typed(), ExitStack() as stack:

            def score(covered: Tensor, examples: Tensor) -> Tensor:
                images = inputs.repeat(len(covered) // len(inputs), 1, 1, 1)
                images[..., :height, :width] = covered
                scores = _scores(run, images, examples, fits)
                if not advances:  # how many targets there are shows in the first forward
                    advances.append(stack.enter_context(run.progress(forwards * scores.shape[1], "forward")))
                advances[0]()
                return scores[:, len(maps)]

            method = CaptumOcclusionMethod(score)
            while run.target is None or len(maps) < run.target.shape[1]:
                map_ = method.attribute(
                    inputs[..., :height, :width],
                    sliding_window_shapes=(inputs.shape[1], *technique.size),
                    strides=(inputs.shape[1], *technique.step),
                    baselines=technique.cover(inputs),
                    additional_forward_args=(torch.arange(len(inputs), device=inputs.device),),
                    perturbations_per_eval=chunk,
                )
                whole = torch.zeros((len(inputs), *inputs.shape[2:]), dtype=map_.dtype, device=map_.device)
                whole[:, :height, :width] = map_[:, 0]
                maps.append(whole)
        run.note("windows_per_forward", max(1, fits[0] // len(inputs)))
        return {"input": torch.stack(maps, dim=1)}


def _scores(run: Run[Occlusion], images: Tensor, examples: Tensor, fits: list[int]) -> Tensor:
    """(B, T), of as many images at once as ``fits`` says; where memory runs out it is halved for good."""
    parts: list[Tensor] = []
    first = 0
    while first < len(images):
        rows = slice(first, first + fits[0])
        scores = _tried(run, images[rows], examples[rows])
        if scores is None:
            fits[0] = len(examples[rows]) // 2
        else:
            parts.append(scores)
            first += len(scores)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _tried(run: Run[Occlusion], images: Tensor, examples: Tensor) -> Tensor | None:
    """``None`` where they do not fit; the failure's traceback, which holds what did, is gone when this returns."""
    try:
        return run.scores(run.forward(images, examples), examples)
    except (RuntimeError, MemoryError) as error:
        if len(images) == 1 or not out_of_memory(error):
            raise
        return None
