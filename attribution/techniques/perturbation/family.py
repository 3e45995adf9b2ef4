"""``Perturbation``: what the techniques share that cover parts of the input and look how the score changes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from torch import Tensor

from attribution.agreement import Agreement, agree, relative_tolerance
from attribution.errors import InputError
from attribution.inputs.inputs import Inputs
from attribution.scores.classes import ClassScore
from attribution.technique import Comparable, Kind, Maps, Technique, paired_maps
from attribution.techniques import each_input
from attribution.techniques.parameters import by_value
from attribution.techniques.perturbation import baselines
from attribution.techniques.perturbation.baselines import Baseline, One


def places_of(inputs: Tensor) -> tuple[int, ...]:
    """Sizes of the axes along which windows lie: those behind the channels, or the features of (N, F)."""
    return tuple(inputs.shape[2:] if inputs.ndim > 2 else inputs.shape[1:])


@dataclass(frozen=True, kw_only=True)
class ScoreDifference(Technique, ABC):
    """A technique whose maps are differences of scores that the model gives to changed inputs."""

    kind: ClassVar[Kind] = "heatmap"
    needs_target: ClassVar[bool] = True
    default_score: ClassVar[ClassScore] = ClassScore(of="probability")
    takes_gradients: ClassVar[bool] = False
    batch_of: ClassVar[Literal["images", "windows", "filters"]] = "windows"

    @property
    def signed(self) -> bool:
        """Negative: the change helps."""
        return True

    def agreement(self, a: Comparable, b: Comparable) -> list[Agreement]:
        """max|a − b| ≤ tolerance · (max|map| + max|score|): a map is a difference of nearly equal scores.

        max|score| is over all classes, since the rounding of one logit goes by the size of what it is summed from,
        not by its own; over the asked ones where a result does not tell.
        """
        sizes = [side.extras.get("largest_score", side.scores) for side in (a, b)]
        size = max((float(scores.abs().max()) for scores in sizes if scores is not None), default=0.0)
        pieces = paired_maps(a, b, by_target=True)
        parts = [relative_tolerance(dtype, host=a.on_host and b.on_host) for *_, dtype in pieces]
        return [
            agree(name, x, y, relative=part, absolute=part * size)
            for (name, x, y, _), part in zip(pieces, parts, strict=True)
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Perturbation(ScoreDifference, ABC):
    """Choices of a technique that covers parts of the input and looks how the score changes.

    Each explained input has a map of its own, (N, T, *places), and is covered alone while the others stay as they are.
    What is not explained goes along with its examples. The key is ``"input"`` where one input is explained, else the
    input's own: ``"input.0"``, ``"input.NAME"``. A subclass says which parts are covered, and is a dataclass with
    ``eq=False``: techniques compare by value, tensors included.

    Args:
        baseline: What covers, in model-input units: one value, one per channel (of (N, F): per feature), a tensor that
            can be broadcast to the input, or ``"blur"``, a blurred copy of the input. A mapping by the names or indices
            of the inputs, such as ``{"image": "blur", "table": 0.0}``, has one for each that is covered.
        input: The one input that is covered, by its name or index; ``None``: every explained one.
    """

    baseline: Baseline = 0.0
    input: str | int | None = None

    def __post_init__(self) -> None:
        owner = type(self).__name__
        object.__setattr__(self, "baseline", baselines.checked(owner, self.baseline))
        if self.input is not None:
            if isinstance(self.input, bool) or not isinstance(self.input, str | int):
                raise InputError(f"{owner}.input is {self.input!r}; give the name or the index of one input")
            object.__setattr__(self, "input", str(self.input).removeprefix("input."))

    @abstractmethod
    def spread(self, places: int) -> tuple[float, ...]:
        """The standard deviation of ``baseline="blur"`` along each of so many place axes."""

    def covered(self, inputs: Inputs) -> tuple[str, ...]:
        """Names of the inputs that are covered.

        Raises:
            InputError: None has the name that the technique was given.
        """
        if self.input is None:
            return inputs.explained
        names = {name.removeprefix("input."): name for name in inputs.explained}
        if self.input not in names:
            raise InputError(
                f"{type(self).__name__}.input is {self.input!r}; explained are {', '.join(map(repr, names))}"
            )
        return (names[str(self.input)],)

    def check(self, inputs: Inputs) -> None:
        """The input that is named exists, and the baseline fits each that is covered."""
        for name in self.covered(inputs):
            own, covered = type(self).__name__, inputs.values[name]
            baselines.check(own, each_input.named(own, "baseline", self.baseline, name, inputs), name, covered)

    def rows(self, part: slice, inputs: Inputs) -> Self:
        """A baseline that has one row for each example is cut to those of the part.

        Raises:
            InputError: It has such rows for one covered input, and for another it has not.
        """
        baseline, ranks = self.baseline, {inputs.values[name].ndim for name in self.covered(inputs)}
        if isinstance(baseline, Tensor) and baseline.ndim in ranks and len(baseline) > 1 and len(ranks) > 1:
            raise InputError(
                f"{type(self).__name__}.baseline of shape {tuple(baseline.shape)} has a row for each example of one "
                "input and none of another, and the examples go through the model one by one; name one by input=…"
            )
        return each_input.of_part(self, "baseline", part, inputs, self.covered(inputs))

    def cover(self, inputs: Tensor, name: str = "input") -> Tensor:
        """What covers an input (N, …): as many axes, each of its size or 1; on its device, in its dtype.

        One choice that all backends share: (1, C, 1, 1) for images and a number, or one number per channel.
        """
        baseline: One = each_input.named(type(self).__name__, "baseline", self.baseline, name)
        return baselines.cover(baseline, inputs, self.spread(len(places_of(inputs))))

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        """The raw map itself; it lies on the places already."""
        return raw

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Perturbation) and type(self) is type(other) and by_value(self) == by_value(other)

    def __hash__(self) -> int:
        return hash((type(self), by_value(self)))
