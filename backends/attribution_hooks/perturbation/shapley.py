"""Values of segments from coalitions of them: Shapley values by orders and by a regression, and LIME."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeVar, final

import torch
from torch import Tensor

from attribution.attributor import Attributor, Run
from attribution.lowered.forwards import Forward, forwarding
from attribution.technique import Maps
from attribution.techniques import LIME, KernelSHAP, ShapleySampling
from attribution.techniques.perturbation.segmented import Segmented
from attribution_hooks.chunks import rows_at_once
from attribution_hooks.perturbation.clean import clean
from attribution_hooks.perturbation.coalitions import Coalitions
from attribution_hooks.perturbation.feature_ablation import spread

S = TypeVar("S", bound=Segmented)


class SegmentValues(Attributor[S], ABC):
    """Values of segments and their standard errors, every target from the same forwards, in float64 at least."""

    backend: ClassVar[str] = "hooks"

    @abstractmethod
    def estimate(
        self, technique: S, coalitions: Coalitions, scores: Tensor, advance: Callable[[], None]
    ) -> tuple[Tensor, Tensor]:
        """(segments, n, T): the values, and their standard errors.

        Args:
            technique: Says which coalitions.
            coalitions: Of one input, and some of the examples.
            scores: (n, T), of these as they are.
            advance: Called for each row of a forward.
        """

    @abstractmethod
    def rows(self, technique: S, segments: int) -> int:
        """Rows of forwards for each example."""

    @final
    def compute(self, run: Run[S]) -> Maps:
        """(N, T, *places) of each covered input."""
        with torch.no_grad():
            names, maps = run.technique.covered(run.inputs), {}
            chunk = rows_at_once(run, len(run.inputs) * 2**20)
            matrix = clean(run, chunk)
            for name in names:
                maps[run.inputs.key(name)], error = self._of_one(run, name, matrix, chunk)
                key = "standard_error" if len(names) == 1 else f"standard_error {run.inputs.key(name)}"
                run.extras[key] = error
        return maps

    def _of_one(self, run: Run[S], name: str, matrix: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
        """The map and its standard error; examples of as many segments together, so that no other changes theirs."""
        x, clean = run.inputs.values[name], run.clean
        assert clean is not None  # beside the score that is settled
        labels = run.technique.labels(x, name)
        own = labels.flatten(1).amax(1).expand(len(x))
        shape = (len(x), clean.shape[1], *labels.shape[1:])
        wide = torch.promote_types(x.dtype, torch.float32)
        found = [torch.empty(shape, dtype=wide, device=x.device) for _ in range(2)]
        for last in own.unique().tolist():
            examples = (own == last).nonzero()[:, 0]
            scores = clean[examples.to(clean.device)].to(x.device)
            total = len(examples) * self.rows(run.technique, last + 1)

            def work(
                forward: Forward, examples: Tensor = examples, scores: Tensor = scores, total: int = total
            ) -> tuple[Tensor, Tensor]:
                coalitions = Coalitions(run, name, labels, examples, chunk, forward)
                with run.progress(total, "coalition") as advance:
                    estimated = self.estimate(run.technique, coalitions, scores, advance)
                run.note("rows_per_forward", coalitions.chunk)
                return estimated

            estimated = forwarding(run, matrix, total, work)
            for map_, values in zip(found, estimated, strict=True):
                map_[examples] = spread(values.to(wide), labels[examples % len(labels)])
        return found[0], found[1]


class HooksShapleySampling(SegmentValues[ShapleySampling]):
    """`ShapleySampling`, one order after the other; the baseline and the input themselves are shown once."""

    technique_type: ClassVar[type[ShapleySampling]] = ShapleySampling

    def rows(self, technique: ShapleySampling, segments: int) -> int:
        """All coalitions of an order but the first and the last, which all orders share."""
        return 1 + technique.permutations * (segments - 1)

    def estimate(
        self, technique: ShapleySampling, coalitions: Coalitions, scores: Tensor, advance: Callable[[], None]
    ) -> tuple[Tensor, Tensor]:
        """The mean of what each segment adds, and √(variance / orders)."""
        count = coalitions.count
        none = coalitions.values(torch.zeros((1, count), dtype=torch.bool, device="cpu"), advance)
        total, squares = none.new_zeros((count, *none.shape[1:])), none.new_zeros((count, *none.shape[1:]))
        for order in technique.orders(count):
            place = order.argsort()
            kept = place < torch.arange(1, count, device="cpu")[:, None]
            on_the_way = [coalitions.values(kept, advance)] if count > 1 else []
            added = torch.cat([none, *on_the_way, scores[None].to(none)]).diff(dim=0)[place.to(none.device)]
            total += added
            squares += added**2
        mean = total / technique.permutations
        variance = (squares / technique.permutations - mean**2).clamp(min=0)
        return mean, (variance / (technique.permutations - 1)).sqrt()


class HooksKernelSHAP(SegmentValues[KernelSHAP]):
    """`KernelSHAP`: the sum of the values is put in for the last of them, which leaves a plain regression."""

    technique_type: ClassVar[type[KernelSHAP]] = KernelSHAP

    def rows(self, technique: KernelSHAP, segments: int) -> int:
        """The coalitions, and the baseline."""
        return 1 + technique.samples

    def estimate(
        self, technique: KernelSHAP, coalitions: Coalitions, scores: Tensor, advance: Callable[[], None]
    ) -> tuple[Tensor, Tensor]:
        """The coefficients, and the square roots of (Z'Z)⁻¹ Z' diag(r²) Z (Z'Z)⁻¹ of residuals r."""
        drawn = technique.coalitions(coalitions.count)
        none = coalitions.values(torch.zeros((1, coalitions.count), dtype=torch.bool, device="cpu"), advance)[0]
        z = drawn.to(none)
        whole = scores.to(none) - none
        wanted = coalitions.values(drawn, advance) - none - z[:, -1, None, None] * whole
        design, flat = z[:, :-1] - z[:, -1:], wanted.flatten(1)
        inverse = torch.linalg.pinv(design)  # (K − 1, samples)
        free = inverse @ flat
        part = inverse**2 @ (flat - design @ free) ** 2
        last = inverse.sum(0, keepdim=True) ** 2 @ (flat - design @ free) ** 2
        values = torch.cat([free, whole.flatten()[None] - free.sum(0, keepdim=True)])
        return values.view(-1, *none.shape), torch.cat([part, last]).sqrt().view(-1, *none.shape)


class HooksLIME(SegmentValues[LIME]):
    """`LIME`: the coefficients of the weighted regression, but for what no segment explains."""

    technique_type: ClassVar[type[LIME]] = LIME

    def rows(self, technique: LIME, segments: int) -> int:
        """The coalitions."""
        return technique.samples

    def estimate(
        self, technique: LIME, coalitions: Coalitions, scores: Tensor, advance: Callable[[], None]
    ) -> tuple[Tensor, Tensor]:
        """The coefficients, and the square roots of (Z'ΠZ)⁻¹ Z'Π diag(r²) ΠZ (Z'ΠZ)⁻¹ of residuals r."""
        drawn = technique.coalitions(coalitions.count)
        found = coalitions.values(drawn, advance)
        root, flat = technique.weights(drawn).sqrt().to(found)[:, None], found.flatten(1)
        design = torch.cat([drawn.to(found), torch.ones_like(root)], dim=1)
        inverse = torch.linalg.pinv(root * design) * root.T  # (K + 1, samples)
        values = inverse @ flat
        errors = (inverse**2 @ (flat - design @ values) ** 2).sqrt()
        return values[:-1].view(-1, *found.shape[1:]), errors[:-1].view(-1, *found.shape[1:])
