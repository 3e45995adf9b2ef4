"""GradientSHAP by Captum's class of this name."""

from typing import Any, ClassVar

import captum.attr
import torch
from torch import Tensor

from attribution.attributor import Run
from attribution.inputs.inputs import Inputs
from attribution.isolation.torch_modes import note_random
from attribution.isolation.undo import undoing
from attribution.technique import Maps
from attribution.techniques.gradient.gradient_shap import GradientSHAP
from attribution_captum.gradients import PerTarget, Score, Tensors, leaves, with_default


class CaptumGradientSHAP(PerTarget[GradientSHAP]):
    """By ``GradientShap``, one call for each sample, of one baseline and one noisy copy of the examples.

    Captum draws a baseline, which is the only one it is given, noise, which is none (``stdevs=0.0``), and the place on
    the line, of numpy's global generator, which is given back. The function that it differentiates takes the
    technique's place instead of that; the difference to the baseline and the product are Captum's.
    """

    technique_type: ClassVar[type[GradientSHAP]] = GradientSHAP

    def ask(self, run: Run[GradientSHAP], score: Score, inputs: Inputs, examples: Tensor) -> Tensors:
        """The mean over samples, added up one by one."""
        names, total = inputs.explained, [torch.zeros_like(x) for x in leaves(inputs)]
        for path in run.technique.paths(inputs):

            def at(*given: Tensor, path: Any = path) -> Tensor:
                *scaled, rows = given
                ends = [path.start[name] + path.at * (path.end[name] - path.start[name]) for name in names]
                moved = [end + (x - x.detach()).to(end) for end, x in zip(ends, scaled, strict=True)]
                return score(*moved, rows)

            ends = tuple(path.end[name] for name in names)
            starts = tuple(path.start[name].expand_as(path.end[name][:1]) for name in names)
            with undoing() as undo, with_default(torch.device("cpu")):
                note_random(undo, ())
                method = captum.attr.GradientShap(at)
                found = method.attribute(ends, starts, 1, 0.0, additional_forward_args=(examples,))
            total = [a + b.detach() for a, b in zip(total, found, strict=True)]
        return tuple(each / run.technique.samples for each in total)

    def tell(self, run: Run[GradientSHAP], maps: Maps) -> None:
        """The gap to completeness, from Captum's convergence delta to each baseline that was drawn."""
        x, gaps = leaves(run.inputs), []
        everything = torch.arange(len(run.inputs), device=run.inputs.device)
        for t in range(run.settled[1].shape[1]):
            delta = captum.attr.IntegratedGradients(Score(run, t)).compute_convergence_delta
            own, parts = tuple(map_[:, t] for map_ in maps.values()), []
            for part, start in run.technique.starts(run.inputs):
                begin = tuple(start[name].expand_as(each) for name, each in zip(run.inputs.explained, x, strict=True))
                parts.append(part * delta(own, begin, x, additional_forward_args=(everything,)))
            gaps.append(torch.stack(parts).sum(dim=0))
        total = torch.stack([map_.flatten(2).sum(dim=2) for map_ in maps.values()]).sum(dim=0)
        gap = torch.stack(gaps, dim=1)
        run.extras.update(run.technique.told(gap, total - gap))
