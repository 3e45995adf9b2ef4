"""Objectives of one's own: several channels, a direction, any function of a layer's output, and sums of these."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from attribution import numbers
from attribution.errors import InputError, LayerError
from attribution.techniques.filter_visualization.units import no_channel
from attribution.techniques.parameters import choice, integer


class Objective(ABC):
    """One number per image, from a layer's output; it is made large.

    Objectives are compared by value, and can be added, subtracted, negated, and multiplied and divided by numbers:
    ``2 * ChannelsObjective(3) - DirectionObjective(v) / 4``. A number that is added moves no image.
    """

    reads_output: bool = False
    """Whether the layer's own output is looked at rather than channels and places."""

    @abstractmethod
    def values(self, layer: str, output: Tensor, activation: Tensor) -> Tensor:
        """(B,), differentiable.

        Args:
            layer: Its name, for errors.
            output: As the layer gave it.
            activation: The same as (B, D, *places), of one place where a neuron was asked for.

        Raises:
            LayerError: The layer has no such channels.
            InputError: The objective gives something else.
        """

    @abstractmethod
    def __str__(self) -> str:
        """A few words: in figures, files and reports."""

    def __add__(self, other: "Objective | float") -> "SumObjective":
        if isinstance(other, Objective):
            return SumObjective((self, other))
        return SumObjective((self,), constant=other)

    __radd__ = __add__

    def __sub__(self, other: "Objective | float") -> "SumObjective":
        return self + -other

    def __rsub__(self, other: float) -> "SumObjective":
        return -self + other

    def __mul__(self, factor: float) -> "SumObjective":
        return SumObjective((self,), (factor,))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "SumObjective":
        number = numbers.real(divisor)
        if not number:
            raise InputError(f"an objective is divided by {divisor!r}; give a number other than 0")
        return SumObjective((self,), (1 / number,))

    def __neg__(self) -> "SumObjective":
        return SumObjective((self,), (-1.0,))


@dataclass(frozen=True)
class ChannelsObjective(Objective):
    """The mean or the sum over channels of mean over p of A[channel, p].

    Args:
        channels: A channel, several, or a ``slice`` of them.
        reduce: Over the channels: ``"mean"`` or ``"sum"``.

    Raises:
        InputError: A field is of another form.
        LayerError: When run: the layer has no such channels.
    """

    channels: int | slice | Sequence[int]
    _: KW_ONLY
    reduce: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        given: object = self.channels
        if isinstance(given, slice):
            first, end, step = given.start or 0, given.stop, 1 if given.step is None else given.step
            if end is None or min(first, end) < 0 or step < 1:
                raise InputError(
                    f"ChannelsObjective.channels is {given}; give a slice with an end, such as slice(0, 8)"
                )
            given = tuple(range(first, end, step))
        several = numbers.items(given)
        found = tuple(
            integer("ChannelsObjective", "channels", channel, least=0)
            for channel in ((given,) if several is None else several)
        )
        if not found or len(set(found)) < len(found):
            raise InputError(f"ChannelsObjective.channels is {self.channels!r}; give at least one channel, each once")
        object.__setattr__(self, "channels", found)
        object.__setattr__(self, "reduce", choice("ChannelsObjective", "reduce", self.reduce, ("mean", "sum")))

    def values(self, layer: str, output: Tensor, activation: Tensor) -> Tensor:
        """See the class."""
        if max(self._channels) >= activation.shape[1]:
            raise no_channel(layer, tuple(activation.shape), max(self._channels))
        chosen = activation[:, list(self._channels)]
        means = chosen.reshape(*chosen.shape[:2], -1).mean(dim=2)
        return means.mean(dim=1) if self.reduce == "mean" else means.sum(dim=1)

    def __str__(self) -> str:
        channels = ", ".join(map(str, self._channels))
        return f"channel {channels}" if len(self._channels) == 1 else f"{self.reduce} of channels {channels}"

    @property
    def _channels(self) -> tuple[int, ...]:
        """As they are kept."""
        assert isinstance(self.channels, tuple)
        return self.channels


@dataclass(frozen=True)
class DirectionObjective(Objective):
    """Mean over p of ⟨A[:, p], v⟩ (``"dot"``), or of ⟨A[:, p], v⟩ / (|A[:, p]| · |v|) (``"cosine"``).

    Where A[:, p] is zero, the cosine is 0.

    Args:
        vector: v, one number per channel.
        by: ``"cosine"`` or ``"dot"``.

    Raises:
        InputError: A field is of another form, or the vector is zero.
        LayerError: When run: the layer has another number of channels.

    Source: C. Olah et al., *Feature Visualization*, Distill 2017, appendix; lucid's ``direction`` and
    ``direction_cossim``.
    """

    vector: Sequence[float] | Tensor
    _: KW_ONLY
    by: Literal["cosine", "dot"] = "cosine"

    def __post_init__(self) -> None:
        given = self.vector.detach().cpu() if isinstance(self.vector, Tensor) else self.vector
        found = [numbers.real(value) for value in numbers.items(given) or ()]
        vector = tuple(value for value in found if value is not None and value - value == 0)
        if not vector or len(vector) < len(found) or not any(vector):
            raise InputError("DirectionObjective.vector must hold one finite number per channel, not all of them zero")
        object.__setattr__(self, "vector", vector)
        object.__setattr__(self, "by", choice("DirectionObjective", "by", self.by, ("cosine", "dot")))

    def values(self, layer: str, output: Tensor, activation: Tensor) -> Tensor:
        """See the class."""
        if activation.shape[1] != len(self.vector):
            raise LayerError(
                f"layer {layer!r} gives {tuple(activation.shape)}: it has {activation.shape[1]} channels, and the "
                f"direction {len(self.vector)} numbers"
            )
        vector = torch.as_tensor(self.vector, dtype=torch.float64, device="cpu").to(activation.device, activation.dtype)
        flat = activation.reshape(*activation.shape[:2], -1)
        if self.by == "dot":
            return torch.einsum("bdp,d->bp", flat, vector).mean(dim=1)
        return functional.cosine_similarity(flat, vector[None, :, None], dim=1).mean(dim=1)

    def __str__(self) -> str:
        return f"{self.by} with a direction over {len(self.vector)} channels"


@dataclass(frozen=True)
class FunctionObjective(Objective):
    """f(A), where A is the layer's own output for one image, (1, …).

    Sequence-first tokens (L, N, D) are given as (1, L, D).

    Args:
        function: A → (1,), differentiable. It gets one image at a time, so that images cannot mix.
        name: In figures, files and reports; ``None``: the function's own. A file keeps the name alone.

    Raises:
        InputError: It is no function. When run: it does not give one differentiable number.
    """

    function: Callable[[Tensor], Tensor]
    name: str | None = None
    reads_output = True

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise InputError(f"FunctionObjective.function is {self.function!r}; give a function of a layer's output")
        name = self.name or getattr(self.function, "__name__", type(self.function).__name__)
        object.__setattr__(self, "name", str(name))

    def values(self, layer: str, output: Tensor, activation: Tensor) -> Tensor:
        """See the class."""
        found = self.function(output)
        if not isinstance(found, Tensor) or found.shape != output.shape[:1] or not found.is_floating_point():
            given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"the objective {self.name!r} gives {given} for an output {tuple(output.shape)} of layer {layer!r}; "
                "expected one float per image, (B,)"
            )
        return found

    def __str__(self) -> str:
        return str(self.name)


@dataclass(frozen=True)
class SumObjective(Objective):
    """Σ weight · part + constant.

    Args:
        parts: Objectives.
        weights: One per part; empty: 1 for each.
        constant: A number that is added.

    Raises:
        InputError: A field is of another form, or the numbers of parts and weights differ.
    """

    parts: tuple[Objective, ...]
    weights: tuple[float, ...] = ()
    constant: float = 0.0

    def __post_init__(self) -> None:
        parts = numbers.items(self.parts) or ()
        found = [numbers.real(weight) for weight in numbers.items(self.weights) or ()] or [1.0] * len(parts)
        weights = tuple(weight for weight in found if weight is not None and weight - weight == 0)
        constant = numbers.real(self.constant)
        finite = constant is not None and constant - constant == 0
        if not parts or not all(isinstance(p, Objective) for p in parts) or len(weights) != len(parts) or not finite:
            raise InputError(
                f"SumObjective takes objectives, a finite weight for each and a finite number; found {self!r}"
            )
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "constant", constant)

    @property
    def reads_output(self) -> bool:  # type: ignore[override]  # by its parts
        """Whether a part looks at the layer's own output."""
        return any(part.reads_output for part in self.parts)

    def values(self, layer: str, output: Tensor, activation: Tensor) -> Tensor:
        """See the class."""
        found = [part.values(layer, output, activation) for part in self.parts]
        return (
            torch.stack([weight * value for weight, value in zip(self.weights, found, strict=True)]).sum(dim=0)
            + self.constant
        )

    def __str__(self) -> str:
        parts = [
            str(part) if weight == 1 else f"{weight:g} · ({part})"
            for weight, part in zip(self.weights, self.parts, strict=True)
        ]
        return " + ".join([*parts, f"{self.constant:g}"] if self.constant else parts)


def checked(owner: str, objectives: object) -> tuple[Objective, ...]:
    """Objectives as the user gives them; functions become `FunctionObjective`.

    Raises:
        InputError: Something else is among them.
    """
    given = (objectives,) if isinstance(objectives, Objective) or callable(objectives) else numbers.items(objectives)
    found = [
        FunctionObjective(each) if callable(each) and not isinstance(each, Objective) else each for each in given or ()
    ]
    if given is None or not all(isinstance(each, Objective) for each in found):
        raise InputError(f"{owner}.objectives is {objectives!r}; give a tuple of objectives or functions")
    return tuple(each for each in found if isinstance(each, Objective))


def each(
    layer: str, objectives: Sequence[Objective], chosen: Sequence[int], output: Tensor, activation: Tensor
) -> Tensor:
    """Each image's own objective: (B,).

    Args:
        layer: Its name.
        objectives: All of them.
        chosen: Which of them is asked of each image.
        output: (B, …), as the layer gave it.
        activation: (B, D, *places).
    """
    found: list[Any] = [
        objectives[index].values(layer, output[row : row + 1], activation[row : row + 1])
        for row, index in enumerate(chosen)
    ]
    return torch.cat(found)
