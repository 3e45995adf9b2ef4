"""Captum's gradient techniques called directly, as its documentation shows them and at their best setting."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import torch
from torch import Tensor, nn

from attribution import Attribution, GradientSHAP
from attribution.agreement import agree
from benchmarks.cases import Case
from benchmarks.peers.captum_tuned import Captum
from benchmarks.peers.peer import Check, Contestant, answered, classes, tolerance
from benchmarks.rows import subject_of

SEED = 0
LOOP = 500
"""How many times the dtype's tolerance: input gradients of a batch and of single rows lie on either side of a ReLU."""


@dataclass(frozen=True, kw_only=True)
class CaptumGuidedBackprop(Captum):
    """``GuidedBackprop``, which announces its hooks in every call."""

    def enter(self, case: Case, device: str, *, sweep: bool) -> Contestant:
        """Maps (N, C, H, W)."""
        attr = import_module("captum.attr")
        model, inputs = self.subject(case, device)

        def answer(run: nn.Module) -> Callable[[], Tensor]:
            method = attr.GuidedBackprop(run)

            def call() -> Tensor:
                with warnings.catch_warnings(action="ignore"):
                    maps: Tensor = method.attribute(inputs, target=classes(case))
                    return maps

            return call

        return self.entered(model, answer)

    def check(self, case: Case, device: str, answer: Tensor, ours: Attribution) -> Check:
        """The rule by which backends are compared."""
        found = case.timed.agreement(ours, answered(ours, self, "input", answer.detach()[:, None]))
        return Check(found, "maps, within the dtype's tolerance × max|map|")


@dataclass(frozen=True, kw_only=True)
class CaptumGradientShap(Captum):
    """``GradientShap`` of as many samples, which it puts into one batch; its draws are its own."""

    def enter(self, case: Case, device: str, *, sweep: bool) -> Contestant:
        """Maps (N, C, H, W)."""
        attr = import_module("captum.attr")
        technique = case.timed
        assert isinstance(technique, GradientSHAP)
        model, inputs = self.subject(case, device)
        zeros = torch.zeros_like(inputs[:1])

        def answer(run: nn.Module) -> Callable[[], Tensor]:
            method = attr.GradientShap(run)

            def call() -> Tensor:
                np.random.seed(SEED)  # noqa: NPY002  # the generator that Captum asks
                maps: Tensor = method.attribute(inputs, zeros, technique.samples, target=classes(case))
                return maps

            return call

        return self.entered(model, answer)

    def check(self, case: Case, device: str, answer: Tensor, ours: Attribution) -> Check:
        """The formula by a plain loop, at the places that Captum drew; ours are others."""
        technique = case.timed
        assert isinstance(technique, GradientSHAP)
        model, x = subject_of(case, device)
        assert x is not None
        drawn = np.random.RandomState(SEED)
        drawn.choice(1, technique.samples * len(x))
        places = torch.tensor(drawn.uniform(0, 1, technique.samples * len(x)), device=x.device).to(x)
        total = torch.zeros_like(x)
        for at in places.view(len(x), technique.samples).T:
            leaf = (at.view(-1, 1, 1, 1) * x).requires_grad_()
            scores = model(leaf).gather(1, torch.tensor(classes(case), device=x.device)[:, None])
            total += x * torch.autograd.grad(scores.sum(), leaf)[0] / technique.samples
        named = zip(answer.detach(), total, strict=True)
        found = [agree(f"image {n}", a, b, relative=LOOP * tolerance(ours)) for n, (a, b) in enumerate(named)]
        return Check(
            found, f"its map against a loop at its own draws, within {LOOP} × the dtype's tolerance × max|map|"
        )
