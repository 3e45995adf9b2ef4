"""A field of a technique that may have one value for each explained input."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor

from attribution.errors import InputError
from attribution.inputs.inputs import Inputs
from attribution.technique import Technique

T = TypeVar("T", bound=Technique)
V = TypeVar("V")


def checked(owner: str, field: str, value: object, check: Callable[[str, object], V]) -> V | dict[str, V]:
    """What ``check`` makes of a value, or of each value of a mapping by the inputs' names or indices.

    Raises:
        InputError: ``check`` refuses one of them, or the mapping is empty or names an input twice.
    """
    if not isinstance(value, Mapping):
        return check(owner, value)
    names = [str(name).removeprefix("input.") for name in value]
    if not names or len(set(names)) < len(names) or any(isinstance(name, bool) for name in value):
        raise InputError(f"{owner}.{field} is {value!r}; give one for each explained input, by its name or index")
    return {name: check(owner, each) for name, each in sorted(zip(names, value.values(), strict=True))}


def named(owner: str, field: str, value: Any, name: str, inputs: Inputs | None = None) -> Any:
    """The value of one input.

    Raises:
        InputError: A mapping has none for it, or one for what is no explained input.
    """
    if not isinstance(value, Mapping):
        return value
    explained = {each.removeprefix("input.") for each in inputs.explained} if inputs is not None else {*value}
    key, strange = name.removeprefix("input."), [each for each in value if each not in explained]
    if key not in value or strange:
        raise InputError(
            f"{owner}.{field} is for {', '.join(map(repr, value))}; explained are "
            f"{', '.join(map(repr, sorted(explained | {key})))}: give one for each"
        )
    return value[key]


def of_part(technique: T, field: str, part: slice, inputs: Inputs, names: Sequence[str]) -> T:
    """A technique of which a field is cut, where it holds a tensor with one row for each example, to those of a part.

    Args:
        technique: A dataclass; the same object where nothing is cut.
        field: A value, or a mapping of them, as `checked` gave it.
        part: Of the examples.
        inputs: All of them.
        names: The inputs that the field is for.
    """
    value = getattr(technique, field)
    cut = _cut(value, part, inputs, names)
    return technique if cut is value else replace(technique, **{field: cut})


def _cut(value: Any, part: slice, inputs: Inputs, names: Sequence[str]) -> Any:
    if not isinstance(value, Mapping):
        return _rows(value, part, {inputs.values[name].ndim for name in names})
    ranks = {name.removeprefix("input."): {inputs.values[name].ndim} for name in inputs.explained}
    found = {name: _rows(each, part, ranks.get(name, set())) for name, each in value.items()}
    return value if all(found[name] is each for name, each in value.items()) else found


def _rows(value: Any, part: slice, ranks: set[int]) -> Any:
    return value[part] if isinstance(value, Tensor) and value.ndim in ranks and len(value) > 1 else value
