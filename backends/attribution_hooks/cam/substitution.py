"""``Substitution``: what the model says where a layer gives something else, without what runs before the layer."""

from typing import Any

import torch
from torch import Tensor

from attribution.attributor import Run
from attribution.run import MASK, medians
from attribution.running.execution import first_line, lost, out_of_memory
from attribution.running.precision import tf32
from attribution_hooks.cam.closed_form import hooked
from attribution_hooks.cam.trunk import Trunk
from attribution_hooks.capture import substituted

ROUNDING = 64
"""How many units in the last place of the largest score asked for two forwards of the same values may be apart."""


class Substitution:
    """Forwards of examples in which a layer gives other values.

    The modules that end before the layer does would give the same again. So they give what they gave once, and their
    forwards are left out. What is computed between modules runs all the same. For each example this is believed only
    where two of its rows are what the whole model says of them.

    Args:
        run: Its score is settled.
        layer: The name.

    Attributes:
        short: Whether forwards begin behind the layer.
    """

    def __init__(self, run: Run[Any], layer: str) -> None:
        self._run, self._layer = run, layer
        self._trunk: Trunk | None = None
        self._example = -1
        self.short = run.asked.of_layer is None and not hooked(run.model.modules())

    def whole(self, values: Tensor, examples: Tensor) -> Tensor:
        """(B, K), by the whole model: the values are in the layer's own form."""
        with substituted(self._run.model, self._layer, lambda _: values.clone()):
            return self._run.matrix(self._run.forward(self._run.inputs[examples], examples), examples)

    def of(self, values: Tensor, example: int, axis: int) -> Tensor:
        """(B, K) of one example, in the shortest way that was found to be right."""
        count = values.shape[axis]
        if self.short and example != self._example:
            self._begin(values.narrow(axis, 0, min(2, count)), example, axis)
        examples = torch.full((count,), example, device=self._run.inputs.device)
        if not self.short:
            return self.whole(values, examples)
        assert self._trunk is not None  # `short` stays where it was found to be right
        return self.behind(self._trunk, values, examples)

    def behind(self, trunk: Trunk, values: Tensor, examples: Tensor) -> Tensor:
        """(B, K), by what runs behind the layer: what runs before it gives what it gave, for one example or for B."""
        with trunk.left_out(values, len(examples)):
            return self._run.matrix(self._run.forward(self._run.inputs[examples], examples), examples)

    def _begin(self, values: Tensor, example: int, axis: int) -> None:
        examples = torch.full((values.shape[axis],), example, device=self._run.inputs.device)
        own = self.whole(values, examples)
        try:
            self._trunk = trunk = Trunk(self._run, self._layer)
            with trunk.noted():
                self._run.forward(self._run.inputs[examples[:1]], examples[:1])
            found = self.behind(trunk, values, examples)
            self.short = alike(self._run, own, found, examples, rounding(self._run, own))
            reason = "the model says something else where modules before the layer are left out"
        except Exception as error:  # the model's own code, which may write into what a module gave
            if lost(error) or out_of_memory(error):
                raise
            self.short, reason = False, f"modules before the layer cannot be left out: {first_line(error)}"
        if not self.short:
            self._run.note(f"reason {self._layer}", reason)
        self._example = example


def alike(run: Run[Any], own: Tensor, found: Tensor, examples: Tensor, unit: float) -> bool:
    """Whether two matrices (B, K) give the same scores of what is asked for, each entry within ``unit`` of the largest.

    Masked classes, of which a score may be anything, count at most `MASK` times what is asked for and the median.
    """
    if own.shape != found.shape or own.dtype != found.dtype:
        return False
    score, target = run.settled
    target = target[examples.to(target.device)]
    sizes = own.abs().nan_to_num(0.0, 0.0, 0.0)
    size = sizes.gather(1, target).amax(1)
    size = torch.minimum(sizes.amax(1), MASK * torch.maximum(medians(sizes), size))
    if run.scale is not None:
        size = torch.maximum(size, run.scale[examples.to(run.scale.device)].amax(1).to(size))
    before, after = score.score_of(own), score.score_of(found)
    room = score.room((unit * size)[:, None].expand_as(own), before, after).gather(1, target)
    return bool(((before - after).gather(1, target).abs() <= room).all())  # NaN is never near


def rounding(run: Run[Any], like: Tensor) -> float:
    """The `unit` of two forwards of the same values."""
    return ROUNDING * torch.finfo(run.execution.autocast or tf32(like) or like.dtype).eps
