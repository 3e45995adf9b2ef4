"""Shapley values of segments by Captum's ``ShapleyValueSampling`` and ``KernelShap``."""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import torch
from captum._utils.models.model import Model
from captum.attr import KernelShap, ShapleyValueSampling
from torch import Tensor

from attribution.attributor import Run
from attribution.techniques import KernelSHAP, ShapleySampling
from attribution_captum.segments import CaptumSegments, OneInput, at_once


class CaptumShapleySampling(CaptumSegments[ShapleySampling]):
    """`ShapleySampling` by ``ShapleyValueSampling``, which is given the technique's orders; it adds up in float32."""

    technique_type: ClassVar[type[ShapleySampling]] = ShapleySampling
    computes_in: ClassVar[torch.dtype | None] = torch.float32

    def ask(self, run: Run[Any], score: OneInput, x: Tensor, cover: Tensor, mask: Tensor, examples: Tensor) -> Tensor:
        """One call."""
        method, segments = ShapleyValueSampling(score), int(mask.max()) + 1
        orders = [tuple(order) for order in run.technique.orders(segments).tolist()]
        method.permutation_generator = lambda features, samples: iter(orders)
        found: Tensor = method.attribute(
            x,
            baselines=cover,
            feature_mask=mask,
            additional_forward_args=(examples,),
            n_samples=len(orders),
            perturbations_per_eval=at_once(run, segments),
        )
        return found


class CaptumKernelSHAP(CaptumSegments[KernelSHAP]):
    """`KernelSHAP` by ``KernelShap``, example by example, which is given the technique's coalitions.

    Captum fits with scikit-learn, which need not be installed; the same regression, weights and all, is solved by
    torch. The two coalitions of all and of none get a larger weight, so that the fit goes through both.
    """

    technique_type: ClassVar[type[KernelSHAP]] = KernelSHAP
    computes_in: ClassVar[torch.dtype | None] = torch.float32

    def ask(self, run: Run[Any], score: OneInput, x: Tensor, cover: Tensor, mask: Tensor, examples: Tensor) -> Tensor:
        """One call for each example."""
        drawn = run.technique.coalitions(int(mask.max()) + 1).long().to(x.device)
        ends = torch.stack([torch.ones_like(drawn[0]), torch.zeros_like(drawn[0])])

        def generator(original: Any, **options: Any) -> Iterator[Tensor]:
            yield from torch.cat([ends, drawn])[:, None]

        found = []
        for n, example in enumerate(examples.split(1)):
            method = KernelShap(score)
            method.interpretable_model, method.perturb_func = _Regression(), generator
            method.inf_weight = 1e10
            with x.device:  # Captum makes tensors of its own on the default device
                found.append(
                    method.attribute(
                        x[n : n + 1],
                        baselines=cover[n : n + 1],
                        feature_mask=mask[n % len(mask)][None],
                        additional_forward_args=(example,),
                        n_samples=2 + len(drawn),
                        perturbations_per_eval=at_once(run, len(drawn)),
                    )
                )
        return torch.cat(found)


class _Regression(Model):  # type: ignore[misc]  # Captum is untyped
    """Weighted least squares with an intercept, in float64."""

    def __init__(self) -> None:
        self._coefficients = torch.empty(0)

    def fit(self, train_data: Iterable[tuple[Tensor, Tensor, Tensor]], **options: Any) -> dict[str, Any]:
        """To batches of coalitions, scores and weights."""
        z, y, weights = (torch.cat([part.double() for part in parts]) for parts in zip(*train_data, strict=True))
        root = weights.view(-1, 1).sqrt()
        design = torch.cat([z, torch.ones_like(z[:, :1])], dim=1)
        self._coefficients = torch.linalg.lstsq(root * design, root * y.view(-1, 1)).solution[:, 0]
        return {}

    def representation(self) -> Tensor:
        """The coefficients without the intercept."""
        return self._coefficients[:-1]

    def __call__(self, x: Tensor) -> Tensor:
        """What the fit gives for coalitions."""
        return x.double() @ self._coefficients[:-1] + self._coefficients[-1]
