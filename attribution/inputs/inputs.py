"""``Inputs``: N examples, in whatever form a model takes them."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from attribution.errors import InputError
from attribution.inputs.copies import Untold, content, copied

AXES = {2: "n f", 3: "n c t", 4: "n c h w", 5: "n c d h w"}
"""Rank of an explained tensor → what its axes are: examples, features; channels, then places."""

PER_EXAMPLE, CONSTANT = "n", ""
"""Axes of a value that is not explained: its rows belong to the examples; it is the same for all."""

_TOLD = ("explained", "plain", "shape", "dtype", "device", "kind", "_beside")
"""All that inputs find out once about themselves, but for tensors."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Inputs:
    """N examples: one or several tensors that are explained, and whatever else the model is given beside them.

    Shape, dtype and device of inputs are those of the first explained tensor.

    Attributes:
        values: By name, in the order of the call: ``"input"`` for a single value, else ``"input.0"``, ``"input.NAME"``.
        axes: Of every tensor: ``"n c h w"`` and the like where it is explained, ``"n"`` where its rows go along with
            the examples, ``""`` where it is the same for all.
        call: Whether the model gets its arguments by position or by keyword.
    """

    values: Mapping[str, Any]
    axes: Mapping[str, str]
    call: Literal["positional", "keyword"] = "positional"

    @classmethod
    def of(cls, value: Any, axes: Mapping[str, str] | Mapping[int, str] | None = None) -> Self:
        """Inputs from a tensor, from a tuple (arguments by position) or from a mapping (by keyword).

        Float tensors of rank 2 to 5 are explained, all of them. Other tensors whose first axis is that of the examples
        go along with them; what else there is (numbers, ``None``, strings) is handed on as it is.

        Args:
            value: What the model takes.
            axes: By index or keyword, where another reading is meant: ``"n"`` for a tensor that goes along and is not
                explained, ``""`` for a constant, and ``"n f"``, ``"n c h w"`` and the like for integers and bools that
                are explained.

        Raises:
            InputError: Nothing in it can be explained, the explained tensors have different numbers of examples, or
                ``axes`` names something else.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping):
            given, call = {str(name): each for name, each in value.items()}, "keyword"
        elif isinstance(value, tuple | list):
            given, call = {str(index): each for index, each in enumerate(value)}, "positional"
        else:
            given, call = {"": value}, "positional"
        named = {} if axes is None else _named(axes)
        if unknown := [*named.keys() - given.keys()]:
            raise InputError(f"axes name {unknown[0]!r}; the inputs have {', '.join(map(repr, given)) or 'no names'}")
        explained = {name: t for name, t in given.items() if _explained(t, named.get(name))}
        counts = {len(tensor) for tensor in explained.values()}
        if len(counts) > 1:
            shapes = ", ".join(f"{name}: {tuple(tensor.shape)}" for name, tensor in explained.items())
            raise InputError(
                f"the inputs have different numbers of examples ({shapes}); give each as many rows, or say which is "
                "none of the examples: Inputs.of(…, axes={'NAME': ''})"
            )
        examples = next(iter(counts), None)
        found = {name: _axes(name, each, named.get(name), examples) for name, each in given.items()}
        names = {name: f"input.{name}" if len(given) > 1 else "input" for name in given}
        if call == "keyword":
            names = {name: f"input.{name}" for name in given}
        return cls(
            values={names[name]: each for name, each in given.items()},
            axes={names[name]: each for name, each in found.items() if each is not None},
            call="keyword" if call == "keyword" else "positional",
        )

    @classmethod
    def formed(cls, tensor: Tensor, axes: Mapping[str, str], told: Mapping[str, Any]) -> Self:
        """A tensor as the only one, of the shape, dtype and device of an earlier one; its axes and `told` are given."""
        found = cls(values={"input": tensor}, axes=axes)
        vars(found).update(told)
        return found

    @property
    def told(self) -> Mapping[str, Any]:
        """What is known of a single tensor by its form, and holds of every other of that form."""
        return {name: getattr(self, name) for name in _TOLD}

    @cached_property
    def explained(self) -> tuple[str, ...]:
        """Names of the tensors that are explained."""
        return tuple(name for name, axes in self.axes.items() if axes not in (PER_EXAMPLE, CONSTANT))

    @cached_property
    def first(self) -> Tensor:
        """The first explained tensor."""
        tensor: Tensor = self.values[self.explained[0]]
        return tensor

    @property
    def tensor(self) -> Tensor:
        """The one explained tensor.

        Raises:
            InputError: There are several.
        """
        if len(self.explained) != 1:
            raise InputError(f"there are several explained inputs ({', '.join(self.explained)}); name one of .values")
        return self.first

    @cached_property
    def plain(self) -> bool:
        """Whether the model is given one tensor and nothing else."""
        return len(self.values) == 1 and self.call == "positional"

    @cached_property
    def shape(self) -> torch.Size:
        """Of the first explained tensor."""
        return self.first.shape

    @cached_property
    def dtype(self) -> torch.dtype:
        """Likewise."""
        return self.first.dtype

    @cached_property
    def device(self) -> torch.device:
        """Likewise."""
        return self.first.device

    @cached_property
    def kind(self) -> tuple[object, ...]:
        """What is alike in inputs of which a model does the same: shapes without the examples, dtypes, other values."""
        return tuple(
            (name, each.shape[1:], each.dtype) if self.axes.get(name) else (name, self._beside[name] or repr(each))
            for name, each in self.values.items()
        )

    @property
    def told_by_kind(self) -> bool:
        """Whether inputs of one `kind` hold the same beside the examples; of objects nobody knows."""
        return None not in self._beside.values()

    @cached_property
    def _beside(self) -> dict[str, Hashable | None]:
        """What the values hold that are the same for all examples; ``None`` where that cannot be told."""
        found: dict[str, Hashable | None] = {}
        for name, each in self.values.items():
            if not self.axes.get(name):
                try:
                    found[name] = content(each)
                except Untold:
                    found[name] = None
        return found

    def key(self, name: str) -> str:
        """What a map of an explained input is called: ``"input"`` where it is the only one, else its own name."""
        return "input" if len(self.explained) == 1 else name

    def places(self, name: str | None = None) -> tuple[int, ...]:
        """Sizes of the axes behind those of examples and channels; none of features."""
        name = self.explained[0] if name is None else name
        return tuple(self.values[name].shape[2:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, examples: slice | Tensor) -> Self:
        """Some of the examples."""
        return self._each(lambda tensor: tensor[examples])

    def repeated(self, times: int) -> Self:
        """All examples so many times, one round after the other."""
        return self._each(lambda tensor: tensor.repeat(times, *[1] * (tensor.ndim - 1)))

    def replaced(self, tensors: "Mapping[str, Tensor] | Tensor") -> Self:
        """With other explained tensors, of as many examples."""
        given = {self.explained[0]: tensors} if isinstance(tensors, Tensor) else tensors
        return type(self)(values={**self.values, **given}, axes=self.axes, call=self.call)

    def detach(self) -> Self:
        """Without graph."""
        return self._of_all(lambda tensor: tensor.detach())

    def clone(self, *, but: Collection[str] = ()) -> Self:
        """On memory of their own, tensors and arrays in lists, tuples and dicts among them: a model may write there.

        Args:
            but: Names of what stays as it is.
        """
        held = {name: each if name in but else copied(each) for name, each in self.values.items()}
        return type(self)(values=held, axes=self.axes, call=self.call)

    def cpu(self) -> Self:
        """On the host."""
        return self._of_all(lambda tensor: tensor.cpu())

    def requires_grad_(self) -> Self:
        """Explained tensors, as the beginning of a graph."""
        for name in self.explained:
            self.values[name].requires_grad_()
        return self

    def into(self, model: Callable[..., Any]) -> Any:
        """What a model returns for these inputs."""
        if self.call == "keyword":
            return model(**{name.partition(".")[2]: each for name, each in self.values.items()})
        return model(*self.values.values())

    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [each for each in self.values.values() if isinstance(each, Tensor)]

    def __str__(self) -> str:
        if self.plain:
            return str(tuple(self.shape))
        told = (
            str(tuple(each.shape)) if isinstance(each, Tensor) else type(each).__name__ for each in self.values.values()
        )
        return ", ".join(f"{name.partition('.')[2]}: {each}" for name, each in zip(self.values, told, strict=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Of what belongs to single examples."""
        held = {name: change(each) if self.axes.get(name) else each for name, each in self.values.items()}
        return type(self)(values=held, axes=self.axes, call=self.call)

    def _of_all(self, change: Callable[[Tensor], Tensor]) -> Self:
        held = {name: change(each) if isinstance(each, Tensor) else each for name, each in self.values.items()}
        return type(self)(values=held, axes=self.axes, call=self.call)


def joined(parts: Sequence[Inputs]) -> Inputs:
    """The examples of several inputs of one kind, one after the other."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    held = {
        name: torch.cat([part.values[name] for part in parts]) if first.axes.get(name) else each
        for name, each in first.values.items()
    }
    return type(first)(values=held, axes=first.axes, call=first.call)


def as_inputs(given: Tensor | Inputs) -> Inputs:
    """Inputs as they are, a tensor as the only one."""
    return given if isinstance(given, Inputs) else Inputs(values={"input": given}, axes={"input": _rank(given)})


def shown_to(model: nn.Module, given: Tensor | Inputs) -> Any:
    """What a model returns for a tensor, or for inputs."""
    return model(given) if isinstance(given, Tensor) else given.into(model)


def _named(axes: object) -> dict[str, str]:
    """Axes by name, as the user gives them.

    Raises:
        InputError: They are no mapping to texts.
    """
    if not isinstance(axes, Mapping):
        raise InputError(f"axes are {axes!r}; give a mapping by index or keyword, such as {{1: 'n'}}")
    for name, each in axes.items():
        if not isinstance(each, str):
            raise InputError(f"axes say that {name!r} is {each!r}; give 'n', '', or one word per axis as in 'n c h w'")
    return {str(name): each for name, each in axes.items()}


def _rank(tensor: Tensor) -> str:
    return AXES.get(tensor.ndim, "n …")


def _explained(value: Any, axes: str | None) -> bool:
    if axes is not None:
        return axes not in (PER_EXAMPLE, CONSTANT)
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim in AXES


def _axes(name: str, value: Any, axes: str | None, examples: int | None) -> str | None:
    """What the axes of a value are; ``None`` where it is no tensor."""
    if not isinstance(value, Tensor):
        if axes is not None:
            raise InputError(f"axes say that {name!r} is {axes!r}, and it is a {type(value).__name__}; leave it out")
        return None
    if axes is not None and axes not in (PER_EXAMPLE, CONSTANT) and len(axes.split()) != value.ndim:
        raise InputError(f"axes say that {name!r} is {axes!r}, and it has shape {tuple(value.shape)}")
    if axes == PER_EXAMPLE and examples is not None and value.shape[:1] != (examples,):
        raise InputError(
            f"axes say that {name!r} has a row for each example, and it has shape {tuple(value.shape)} for {examples} "
            "examples; give as many rows, or '' for a constant"
        )
    if axes is not None:
        return axes
    if value.is_floating_point() and value.ndim in AXES:
        return AXES[value.ndim]
    return PER_EXAMPLE if examples is not None and value.ndim and len(value) == examples else CONSTANT
