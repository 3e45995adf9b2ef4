"""A field of a technique that may have one value for each explained input."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from attribution.errors import InputError
from attribution.inputs.inputs import Inputs

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
