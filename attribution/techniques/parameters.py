"""Checks of technique parameters that several techniques share.

numpy's and torch's integers, arrays and tensors are taken where Python's ints and tuples are, and become those.
"""

from collections.abc import Mapping
from dataclasses import fields
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attribution import numbers
from attribution.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def layer_names(owner: str, layers: object) -> tuple[str, ...]:
    """A tuple of layer names without repeats.

    Raises:
        InputError: A single string, something that is no string, or a name given twice.
    """
    given = numbers.items(layers)
    if given is None:
        example = f": layers=({layers!r},)" if isinstance(layers, str) else ""
        raise InputError(f"{owner}.layers is {layers!r}; give a tuple of names{example}")
    if not all(isinstance(name, str) and name for name in given):
        raise InputError(f"{owner}.layers holds something that is no layer name: {given!r}")
    names = tuple(map(str, given))
    if len(set(names)) < len(names):
        raise InputError(f"{owner}.layers names a layer twice: {names!r}")
    return names


def integer(owner: str, name: str, value: object, *, least: int) -> int:
    """An int of at least ``least`` that fits into 64 bits; bools are refused.

    Raises:
        InputError: Anything else.
    """
    number = numbers.integer(value)
    if number is None or not least <= number < 2**63:
        most = ", below 2**63" if number is not None and number > least else ""
        raise InputError(f"{owner}.{name} is {value!r}; give an int of at least {least}{most}")
    return number


def axis(owner: str, value: object) -> int:
    """``channel_axis``: an int, counted from the end where it is below 0.

    Raises:
        InputError: Anything else.
    """
    number = numbers.integer(value)
    if number is None or not -8 <= number < 8:
        raise InputError(f"{owner}.channel_axis is {value!r}; give an axis of the layer's output, such as 1 or -1")
    return number


def pair(owner: str, name: str, value: object, *, least: int = 1) -> tuple[int, int]:
    """(height, width) from one int or two.

    Raises:
        InputError: Not one or two ints of at least ``least``.
    """
    given = numbers.items(value)
    if given is None:
        given = (value, value)
    if len(given) != 2:
        raise InputError(f"{owner}.{name} is {value!r}; give one int or (height, width)")
    height, width = (integer(owner, name, item, least=least) for item in given)
    return height, width


def one_or_several(owner: str, name: str, value: object, *, least: int = 1) -> int | tuple[int, ...]:
    """One int, which stands for every place axis, or one for each.

    Raises:
        InputError: Not ints of at least ``least``.
    """
    given = numbers.items(value)
    if given is not None and not given:
        raise InputError(f"{owner}.{name} is empty; give one int, or one for each place axis: (height, width)")
    if given is None:
        return integer(owner, name, value, least=least)
    return tuple(integer(owner, name, item, least=least) for item in given)


def real(owner: str, name: str, value: object, *, zero: bool, below: float = float("inf")) -> float:
    """A finite number above 0, or 0 where ``zero``, and below ``below``; bools are refused.

    Raises:
        InputError: Anything else.
    """
    number = numbers.real(value)
    if number is None or not isfinite(number) or not 0 <= number < below or (number == 0 and not zero):
        most = f", below {below:g}" if isfinite(below) else ""
        raise InputError(
            f"{owner}.{name} is {value!r}; give a finite number {'of at least' if zero else 'above'} 0{most}"
        )
    return number


def choice(owner: str, name: str, value: object, choices: tuple[str, ...]) -> str:
    """One of a few words.

    Raises:
        InputError: Anything else.
    """
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{owner}.{name} is {value!r}; give {' or '.join(map(repr, choices))}")
    return str(value)


def tokens(owner: str, value: object) -> tuple[int, ...] | None:
    """``(leading, *places)``: how tokens lie on an input; ``None`` stays.

    Raises:
        InputError: Anything else.
    """
    if value is None:
        return None
    given = numbers.items(value) or ()
    if not 2 <= len(given) <= 4:
        raise InputError(f"{owner}.tokens is {value!r}; give (leading tokens, h, w), or None")
    return tuple(integer(owner, "tokens", n, least=0 if not i else 1) for i, n in enumerate(given))


def by_value(technique: "DataclassInstance") -> tuple[Any, ...]:
    """The fields of a technique, tensors by dtype, shape and bytes: equal for equal techniques, and with a hash."""
    held = [getattr(technique, field.name) for field in fields(technique)]
    return tuple([_plain(value) if isinstance(value, Tensor | Mapping) else value for value in held])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple((name, _plain(each)) for name, each in value.items())
    if not isinstance(value, Tensor):
        return value
    host = value.detach().cpu().contiguous()
    return str(host.dtype), tuple(host.shape), host.flatten().view(torch.uint8).numpy().tobytes()


def flag(owner: str, name: str, value: object) -> bool:
    """True or False, numpy's included.

    Raises:
        InputError: Anything else.
    """
    found = numbers.flag(value)
    if found is None:
        raise InputError(f"{owner}.{name} is {value!r}; give True or False")
    return found
