"""GradientSHAP: how does the score's difference to a distribution of baselines spread over the input values?"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from torch import Tensor

from attribution.inputs.inputs import Inputs
from attribution.techniques.gradient.baselines import Baseline, checked, several
from attribution.techniques.gradient.family import AveragedGradient, Point
from attribution.techniques.gradient.paths import Path, paths
from attribution.techniques.parameters import integer, real


@dataclass(frozen=True, kw_only=True, eq=False)
class GradientSHAP(AveragedGradient):
    r"""The gradient of the score at random places between random baselines and the noisy input, times their difference.

    raw = mean over k of (x[k] − b[k]) · ∂S/∂x at b[k] + a[k] (x[k] − b[k]), with x[k] = x + noise · (max x − min x) ·
    z[k], b[k] drawn from the baselines, a[k] uniform between 0 and 1, z[k] standard normal.

    Sign and unit: positive where going from the baselines to the input raises the score; in units of the score. Without
    noise the expected map adds up to S(x) − mean of S(b), over all explained inputs. ``extras["gap"]`` (N, T) is
    Σ map − (S(x) − mean over k of S(b[k])), ``extras["relative_gap"]`` the gap divided by |S(x) − mean of S(b[k])|. It
    falls with the root of ``samples``: choose them by it. Raw maps are (N, T, C, …), and so are maps; (N, T, …) with
    other ``channels``.

    The draws have a generator of their own, on the host, in float64. All examples get the same b[k], a[k] and z[k], the
    noise times each one's own range, so that neither the chunks nor the rest of the batch change an example's map. More
    samples begin with the same draws.

    Args:
        baselines: In model-input units, after the transform: one value, one per input channel, or a tensor (B, …) of B
            baselines with the shape of one example. It serves all explained inputs; a mapping by their names or indices
            has some for each, of which row b[k] is drawn for all of them together.
        samples: At least 1. ``Execution.batch_size`` counts samples of one example.
        noise: Standard deviation as a part of max x − min x, of each example and explained input.
        seed: Of the draws.
        channels: See `AveragedGradient`.

    Raises:
        InputError: A field is out of range, or the baselines do not fit the inputs.
        ModelError: When run: no gradient reaches the inputs.

    Source: S. M. Lundberg, S.-I. Lee, *A Unified Approach to Interpreting Model Predictions*, NeurIPS 2017, as the
    authors' package shap has it (``GradientExplainer``); as expected gradients: G. Erion et al., *Improving performance
    of deep learning models with axiomatic attribution priors and expected gradients*, Nature Machine Intelligence 2021,
    equation 3. Departs from them: examples share the draws.
    """

    name: ClassVar[str] = "gradient_shap"
    title: ClassVar[str] = "GradientSHAP"
    batch_of: ClassVar[Literal["images", "windows", "filters"]] = "windows"

    baselines: Baseline = 0.0
    samples: int = 20
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "baselines", checked("GradientSHAP", self.baselines, "baselines"))
        object.__setattr__(self, "samples", integer("GradientSHAP", "samples", self.samples, least=1))
        object.__setattr__(self, "noise", real("GradientSHAP", "noise", self.noise, zero=True))
        object.__setattr__(self, "seed", integer("GradientSHAP", "seed", self.seed, least=0))

    def check(self, inputs: Inputs) -> None:
        """The baselines fit every explained input."""
        several("GradientSHAP", self.baselines, inputs)

    def paths(self, inputs: Inputs) -> Iterator[Path]:
        """The samples: a[k], b[k] and x[k]."""
        baselines = several("GradientSHAP", self.baselines, inputs)
        return paths(inputs, baselines, samples=self.samples, noise=self.noise, seed=self.seed)

    def points(self, inputs: Inputs) -> Iterator[Point]:
        """One of each sample, all explained inputs moving together."""
        for path in self.paths(inputs):
            yield Point(inputs.replaced(path.place()), 1 / self.samples, path.way())

    def starts(self, inputs: Inputs) -> list[tuple[float, Mapping[str, Tensor]]]:
        """The baselines that are drawn, each once, and which part of the samples has it."""
        drawn = [(path.row, path.start) for path in replace(self, noise=0.0).paths(inputs)]
        counts = Counter(row for row, _ in drawn)
        return [(counts[row] / self.samples, start) for row, start in dict(drawn).items()]

    @classmethod
    def example(cls) -> Self:
        """Few samples, channels added up."""
        return cls(samples=3, baselines=0.5, channels="sum")
