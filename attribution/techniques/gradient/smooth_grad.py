"""SmoothGrad: to which pixels is the score sensitive, on average around the image?"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from torch import Tensor

from attribution.inputs.inputs import Inputs
from attribution.techniques.gradient.family import AveragedGradient, Point
from attribution.techniques.gradient.noise import draws, generator
from attribution.techniques.parameters import choice, integer, real

Statistic = Literal["mean", "squared", "variance"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SmoothGrad(AveragedGradient):
    r"""A statistic of the score's signed gradient over noisy copies of the input.

    g[k] = ∂S/∂x at x + noise · (max x − min x) · z[k], with z[k] standard normal; raw = mean over k of g[k], or of
    g[k]², or the variance of g[k], which is mean of squares − square of the mean.

    Sign and unit: the mean is positive where a larger value raises the score, in units of the score per unit of the
    model's input; the other two are not negative, in the square of that unit. Raw maps are (N, T, C, …), and so are
    maps; (N, T, …) with other ``channels``.

    The noise has a generator of its own, on the host, in float64, and z[k] has the shape of one example. All examples
    get the same z[k], each times its own range, so that neither the chunks nor the rest of the batch change an
    example's map. More samples begin with the same z.

    Args:
        samples: How many noisy copies, at least 1. ``Execution.batch_size`` counts copies of one example.
        noise: Standard deviation as a part of max x − min x, of each example and explained input.
        statistic: Of the gradients: ``"mean"`` is SmoothGrad, ``"squared"`` is SmoothGrad², ``"variance"`` is VarGrad.
        seed: Of the noise.
        channels: See `AveragedGradient`.

    Raises:
        InputError: A field is out of range.
        ModelError: When run: no gradient reaches the inputs.

    Source: D. Smilkov, N. Thorat, B. Kim, F. Viégas, M. Wattenberg, *SmoothGrad: removing noise by adding noise*, arXiv
    1706.03825, 2017, section 2; the variance: J. Adebayo et al., *Local Explanation Methods for Deep Neural Networks
    Lack Sensitivity to Parameter Values*, arXiv 1810.03307, 2018. Departs from the paper: examples share z[k].
    """

    name: ClassVar[str] = "smooth_grad"
    title: ClassVar[str] = "SmoothGrad"
    batch_of: ClassVar[Literal["images", "windows", "filters"]] = "windows"
    formula: ClassVar[tuple[str, ...]] = ("channels", "statistic")

    samples: int = 20
    noise: float = 0.15
    statistic: Statistic = "mean"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "samples", integer("SmoothGrad", "samples", self.samples, least=1))
        object.__setattr__(self, "noise", real("SmoothGrad", "noise", self.noise, zero=True))
        known = ("mean", "squared", "variance")
        object.__setattr__(self, "statistic", choice("SmoothGrad", "statistic", self.statistic, known))
        object.__setattr__(self, "seed", integer("SmoothGrad", "seed", self.seed, least=0))

    @property
    def signed(self) -> bool:
        """Only the mean."""
        return self.statistic == "mean"

    def unit_of(self, score: str) -> str:
        """A gradient's, or its square."""
        return f"{score} per unit of the input" if self.signed else f"({score} per unit of the input)²"

    def draws(self, inputs: Inputs) -> Iterator[dict[str, Tensor]]:
        """What is added to each explained input, sample by sample."""
        return draws(inputs, samples=self.samples, part=self.noise, source=generator(self.seed))

    def points(self, inputs: Inputs) -> Iterator[Point]:
        """The noisy copies, all explained inputs at once."""

        def noisy(z: dict[str, Tensor]) -> Point:
            return Point(inputs.replaced({name: inputs.values[name] + z[name] for name in z}), 1 / self.samples)

        return map(noisy, self.draws(inputs))

    @classmethod
    def example(cls) -> Self:
        """Few samples, channels added up."""
        return cls(samples=3, channels="sum")
