"""Python's own numbers and tuples from those of numpy and torch."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any


def integer(value: object) -> int | None:
    """An int from an int, a numpy integer, or an array or tensor without axes that holds one; else ``None``.

    Bools are no numbers here, whoever's they are.
    """
    value = _single(value)
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def real(value: object) -> float | None:
    """A float from a number that is not complex, or an array or tensor without axes that holds one; else ``None``."""
    value = _single(value)
    try:
        return float(value) if isinstance(value, Real) and not isinstance(value, bool) else None
    except OverflowError:  # an int beyond the largest float
        return float("inf")


def flag(value: object) -> bool | None:
    """A bool from a bool, also numpy's; else ``None``."""
    value = _single(value)
    return value if isinstance(value, bool) else None


def items(value: object) -> tuple[Any, ...] | None:
    """What a sequence, an array or a tensor holds along its first axis; ``None`` for text and for single values."""
    if isinstance(value, str | bytes | bytearray):
        return None
    if isinstance(value, Sequence) or (hasattr(value, "tolist") and getattr(value, "ndim", 0) > 0):
        try:
            return tuple(value)  # type: ignore[arg-type]  # an array, by duck type
        except RuntimeError:  # a nested tensor
            return None
    return None


def _single(value: object) -> object:
    """The value in an array or tensor without axes; numpy's scalars are such arrays.

    A tensor without a value, as on the meta device, or with an integer that stands for another number, is left alone.
    """
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 and not getattr(value, "is_quantized", False):
        try:
            return value.item()
        except (RuntimeError, ValueError):
            return value
    return value
