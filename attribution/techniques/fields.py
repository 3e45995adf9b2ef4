"""Checks of technique parameters that several techniques share."""

from collections.abc import Sequence

from attribution.errors import InputError


def layer_names(owner: str, layers: object) -> tuple[str, ...]:
    """A tuple of layer names without repeats.

    Raises:
        InputError: A single string, something that is no string, or a name given twice.
    """
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise InputError(f"{owner}.layers is {layers!r}; give a tuple of names: layers=({str(layers)!r},)")
    names = tuple(layers)
    if not all(isinstance(name, str) and name for name in names):
        raise InputError(f"{owner}.layers holds something that is no layer name: {names!r}")
    if len(set(names)) < len(names):
        raise InputError(f"{owner}.layers names a layer twice: {names!r}")
    return names


def integer(owner: str, name: str, value: object, *, least: int) -> int:
    """An int of at least ``least``; bools are refused.

    Raises:
        InputError: Anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{owner}.{name} is {value!r}; give an int of at least {least}")
    return value


def pair(owner: str, name: str, value: object, *, least: int = 1) -> tuple[int, int]:
    """(height, width) from one int or two.

    Raises:
        InputError: Not one or two ints of at least ``least``.
    """
    items = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    if len(items) != 2:
        raise InputError(f"{owner}.{name} is {value!r}; give one int or (height, width)")
    height, width = (integer(owner, name, item, least=least) for item in items)
    return height, width
