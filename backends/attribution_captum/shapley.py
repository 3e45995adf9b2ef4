"""Values of segments by Captum's ``ShapleyValueSampling``, ``KernelShap`` and ``Lime``."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, TypeVar

import torch
from captum._utils.models.model import Model
from captum.attr import KernelShap, Lime, ShapleyValueSampling
from torch import Tensor

from attribution.attributor import Run
from attribution.isolation import function_modes
from attribution.techniques import LIME, KernelSHAP, ShapleySampling
from attribution.techniques.perturbation.segmented import Segmented
from attribution_captum.segments import CaptumSegments, OneInput, at_once

S = TypeVar("S", bound=Segmented)


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


class CaptumRegression(CaptumSegments[S], ABC):
    """By a regression of Captum's, example by example, which is given the technique's coalitions.

    Captum fits with scikit-learn, which need not be installed; the same regression, weights and all, is solved by
    torch.
    """

    computes_in: ClassVar[torch.dtype | None] = torch.float32

    @abstractmethod
    def method(self, technique: S, score: OneInput) -> Lime:
        """Captum's."""

    @abstractmethod
    def coalitions(self, technique: S, segments: int) -> Tensor:
        """(R, segments), all that it is given."""

    def ask(self, run: Run[Any], score: OneInput, x: Tensor, cover: Tensor, mask: Tensor, examples: Tensor) -> Tensor:
        """One call for each example."""
        drawn = self.coalitions(run.technique, int(mask.max()) + 1).long().to(x.device)

        def generator(original: Any, **options: Any) -> Iterator[Tensor]:
            yield from drawn[:, None]

        found = []
        for n, example in enumerate(examples.split(1)):
            method = self.method(run.technique, score)
            method.interpretable_model, method.perturb_func = _Regression(), generator
            with function_modes.on(x.device):  # Captum makes tensors of its own on the default device
                found.append(
                    method.attribute(
                        x[n : n + 1],
                        baselines=cover[n : n + 1],
                        feature_mask=mask[n % len(mask)][None],
                        additional_forward_args=(example,),
                        n_samples=len(drawn),
                        perturbations_per_eval=at_once(run, len(drawn)),
                    )
                )
        return torch.cat(found)


class CaptumKernelSHAP(CaptumRegression[KernelSHAP]):
    """`KernelSHAP` by ``KernelShap``. All and none get a larger weight, so that the fit goes through both."""

    technique_type: ClassVar[type[KernelSHAP]] = KernelSHAP

    def method(self, technique: KernelSHAP, score: OneInput) -> Lime:
        """``KernelShap``."""
        method = KernelShap(score)
        method.inf_weight = 1e10
        return method

    def coalitions(self, technique: KernelSHAP, segments: int) -> Tensor:
        """All, none, and those that were drawn."""
        drawn = technique.coalitions(segments)
        return torch.cat([torch.ones_like(drawn[:1]), torch.zeros_like(drawn[:1]), drawn])


class CaptumLIME(CaptumRegression[LIME]):
    """`LIME` by ``Lime``, which is given the weights of coalitions and a regression without a penalty."""

    technique_type: ClassVar[type[LIME]] = LIME

    def method(self, technique: LIME, score: OneInput) -> Lime:
        """``Lime``."""
        return Lime(
            score, _Regression(), similarity_func=lambda original, shown, coalition, **_: technique.weights(coalition)
        )

    def coalitions(self, technique: LIME, segments: int) -> Tensor:
        """Those that were drawn."""
        return technique.coalitions(segments)


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
