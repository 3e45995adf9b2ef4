"""Attributors that are right about plain models and plain exits only, each careless in one thing; and a right one."""

import copy
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn

from attribution import Attributor, Occlusion, Run
from attribution.technique import Maps
from tests.testing.planted import Honest, first

Forward = Callable[[Tensor], Tensor]


class HonestOcclusion(Attributor[Occlusion]):
    """Every covered image goes through the model that it was given, as many at once as it was told."""

    technique_type = Occlusion
    backend = "planted"

    def compute(self, run: Run[Any]) -> Maps:
        return covered(self, run, run.forward, run.execution.batch_size or 16)


def covered(attributor: Attributor[Any], run: Run[Any], forward: Forward, size: int) -> Maps:
    technique, inputs = run.technique, run.inputs.tensor
    windows = technique.lattice(*inputs.shape[2:]).windows
    images = [inputs, *(inputs.clone() for _ in windows)]
    for image, ((top, bottom), (left, right)) in zip(images[1:], windows, strict=True):
        image[:, :, top:bottom, left:right] = technique.cover(inputs)
    own = torch.arange(len(inputs))
    shown = zip(torch.cat(images[1:]).split(size), own.repeat(len(windows)).split(size), strict=True)
    with torch.no_grad():
        clean = torch.cat([run.scores(forward(inputs[rows]), rows) for rows in own.split(size)])
        scores = torch.cat([run.scores(forward(part), rows) for part, rows in shown])
    scores = scores.unflatten(0, (len(windows), len(inputs)))
    total, count = inputs.new_zeros(*clean.shape, *inputs.shape[2:]), inputs.new_zeros(inputs.shape[2:])
    for score, ((top, bottom), (left, right)) in zip(scores, windows, strict=True):
        total[:, :, top:bottom, left:right] += (clean - score)[..., None, None]
        count[top:bottom, left:right] += 1
    return {"input": total / count.clamp(min=1)}


class OneForAll(Honest):
    """An extra that is no row per image."""

    def compute(self, run: Run[Any]) -> Maps:
        run.extras["largest"] = run.inputs.tensor.abs().max()[None]
        return super().compute(run)


class AllAtOnce(HonestOcclusion):
    """All windows in one batch, whatever it was told."""

    def compute(self, run: Run[Any]) -> Maps:
        return covered(self, run, run.model, 10**6)


class CopiesAnew(Honest):
    """Believes that a copy is the model."""

    def compute(self, run: Run[Any]) -> Maps:
        run.model = copy.deepcopy(self.model).eval()
        return super().compute(run)


class BelievesATrace(HonestOcclusion):
    """Covered images go through what torch.fx made of the model."""

    def compute(self, run: Run[Any]) -> Maps:
        return covered(self, run, fx.symbolic_trace(run.model), 16)


class Remembers(Honest):
    """Gives the maps of the first call again where a model is asked the same again."""

    def compute(self, run: Run[Any]) -> Maps:
        question = f"{run.technique} {hash(run.asked)} {run.inputs.tensor.numpy().tobytes()!r}"
        maps = REMEMBERED.setdefault(self.model, {}).setdefault(question, super().compute(run))
        return {name: map_.clone() for name, map_ in maps.items()}


class LateTry(Honest):
    """Doubles a weight on the way; what is raised before ``try`` leaves it so."""

    def compute(self, run: Run[Any]) -> Maps:
        weight = first(self).weight.data
        weight.mul_(2)
        doubled = weight
        halved = doubled * 0.5
        try:
            weight.copy_(halved)
            maps = super().compute(run)
            weight.mul_(2)
            return maps
        finally:
            weight.copy_(halved)


class Hoards(Honest):
    """Keeps every model that it was shown."""

    def compute(self, run: Run[Any]) -> Maps:
        HOARD.append(run.model)
        return super().compute(run)


REMEMBERED: WeakKeyDictionary[nn.Module, dict[str, Maps]] = WeakKeyDictionary()
HOARD: list[nn.Module] = []

CARELESS: dict[str, tuple[type[Attributor[Any]], str]] = {
    "rows_follow_the_images": (OneForAll, "extra 'largest'"),
    "rows_that_mix_change_no_map": (AllAtOnce, "DIFFERS"),
    "a_copy_that_differs_is_not_used": (CopiesAnew, "DIFFERS"),
    "covered_images_go_through_the_model": (BelievesATrace, "a type that is asked for: the map of class"),
    "a_number_that_changes_between_calls_is_seen": (Remembers, "that of the call before"),
    "an_interrupt_anywhere_leaves_no_trace": (LateTry, "values: stem"),
    "models_that_hold_themselves_are_freed": (Hoards, "a plain model"),
}
"""Check → what it must catch, and what it says then."""
