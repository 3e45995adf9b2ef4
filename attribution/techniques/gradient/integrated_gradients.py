"""Integrated gradients: how does the score's change from a baseline spread over the input values?"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from torch import Tensor

from attribution.inputs.inputs import Inputs
from attribution.techniques.gradient.baselines import Baseline, checked, laid
from attribution.techniques.gradient.family import AveragedGradient, Point
from attribution.techniques.gradient.quadrature import RULES, Rule, least, nodes
from attribution.techniques.parameters import choice, integer


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegratedGradients(AveragedGradient):
    r"""The gradient of the score, averaged on the straight line from a baseline b to the input, times (x − b).

    raw = (x − b) · ∫ from 0 to 1 of ∂S/∂x at b + a (x − b) da ≈ (x − b) · Σ over k of w[k] · ∂S/∂x at b + a[k] (x − b).

    Sign and unit: positive where going from the baseline to the input raises the score; in units of the score. Maps add
    up to S(x) − S(b), over all explained inputs, up to ``extras["gap"]`` (N, T) = Σ map − (S(x) − S(b));
    ``extras["relative_gap"]`` is the gap divided by |S(x) − S(b)|. The gap is what the finite sum leaves, and not
    rounding: choose ``steps`` by it. Raw maps are (N, T, C, …), and so are maps; (N, T, …) with other ``channels``.

    Args:
        steps: Points on the line, at least 1. ``Execution.batch_size`` counts points of one example.
        baseline: In model-input units, after the transform: one value, one per input channel, or a tensor of the
            inputs' shape, with or without the axis of the examples. It serves all explained inputs; a mapping by their
            names or indices, such as ``{"image": 0.5, "table": 0.0}``, has one for each.
        rule: Of the sum. ``"gausslegendre"``: exact for gradients that are polynomials in a of a degree below
            2 · steps. ``"riemann_left"``, ``"riemann_middle"``, ``"riemann_right"``: a[k] = (k, k + ½, k + 1) / steps,
            w = 1 / steps. ``"riemann_trapezoid"``: a[k] = k / (steps − 1), w = 1 / (steps − 1), half of it at both
            ends; at least 2 steps.
        channels: See `AveragedGradient`.

    Raises:
        InputError: A field is out of range, or the baseline does not fit the inputs.
        ModelError: When run: no gradient reaches the inputs.

    Source: M. Sundararajan, A. Taly, Q. Yan, *Axiomatic Attribution for Deep Networks*, ICML 2017, section 3, equation
    1. Departs from the paper: in the rule; the paper's is ``"riemann_right"`` (equation 3).
    """

    name: ClassVar[str] = "integrated_gradients"
    title: ClassVar[str] = "Integrated gradients"
    batch_of: ClassVar[Literal["images", "windows", "filters"]] = "windows"

    steps: int = 50
    baseline: Baseline = 0.0
    rule: Rule = "gausslegendre"

    def __post_init__(self) -> None:
        super().__post_init__()
        own = type(self).__name__
        object.__setattr__(self, "rule", choice(own, "rule", self.rule, RULES))
        object.__setattr__(self, "steps", integer(own, "steps", self.steps, least=least(self.rule)))
        object.__setattr__(self, "baseline", checked(own, self.baseline))

    @property
    def samples(self) -> int:
        """The steps."""
        return self.steps

    def check(self, inputs: Inputs) -> None:
        """The baseline fits every explained input."""
        self.start_of(inputs)

    def start_of(self, inputs: Inputs) -> dict[str, Tensor]:
        """The baseline of each explained input, of a shape that broadcasts to it."""
        return laid(type(self).__name__, self.baseline, inputs)

    def points(self, inputs: Inputs) -> Iterator[Point]:
        """On the line, all explained inputs moving together."""
        start = self.start_of(inputs)

        def place(at: float) -> dict[str, Tensor]:  # x − b anew for each: kept, it would be kept beside every graph
            return {name: b + at * (inputs.values[name] - b) for name, b in start.items()}

        return (Point(inputs.replaced(place(at)), weight) for at, weight in nodes(self.rule, self.steps))

    def factor(self, inputs: Inputs) -> dict[str, Tensor]:
        """From the baseline to the inputs."""
        return {name: inputs.values[name] - b for name, b in self.start_of(inputs).items()}

    @classmethod
    def example(cls) -> Self:
        """Few steps, with a bend between them here and there."""
        return cls(steps=4, channels="sum")
