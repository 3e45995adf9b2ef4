"""What the fields of scores have in common: how they are read, and the errors where they are something else."""

from typing import TypeVar

import torch
from torch import Tensor

from attribution import numbers
from attribution.errors import TargetError

Word = TypeVar("Word", bound=str)


def index(owner: str, name: str, value: object, what: str = "an int of at least 0") -> int:
    """A place, counted from 0.

    Raises:
        TargetError: It is no int, or negative.
    """
    found = numbers.integer(value)
    if found is None or found < 0:
        raise TargetError(f"{owner}.{name} is {value!r}; give {what}")
    return found


def word(owner: str, name: str, value: object, words: tuple[str, ...]) -> str:
    """One of a few words.

    Raises:
        TargetError: It is none of them.
    """
    if not isinstance(value, str) or value not in words:
        raise TargetError(f"{owner}.{name} is {value!r}; give {' or '.join(map(repr, words))}")
    return str(value)


def held(owner: str, name: str, value: object, form: str) -> Tensor:
    """A tensor of a score: on the host, without graph, on memory that nobody else writes into.

    Raises:
        TargetError: It is no array of finite real numbers or bools.
    """
    try:
        found = torch.as_tensor(value, device="cpu").detach()
        usable = found.layout == torch.strided and not found.is_complex() and bool(found.isfinite().all())
        kept = found.clone()
    except Exception as error:  # whatever torch says of a thing that is no array, nested, quantised or on no device
        raise TargetError(f"{owner}.{name} is a {type(value).__name__}; give {form}") from error
    if not usable or not found.numel():
        raise TargetError(f"{owner}.{name} must hold finite numbers; give {form}")
    return kept
