"""Names of classes, in whatever form a user keeps them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from attribution import numbers
from attribution.errors import InputError

ClassNames: TypeAlias = Sequence[str] | Mapping[int, str] | Mapping[str, str]
"""One name per class in order (a list, an array), or names by index: ``{0: "cat"}``, in JSON ``{"0": "cat"}``."""


def titles(labels: "ClassNames | None", indices: Iterable[int]) -> list[str]:
    """The names of some classes; ``"class 7"`` where there are no names, or a mapping leaves this one out.

    Raises:
        InputError: ``labels`` is no `ClassNames`, or is a sequence too short for an index: that is another model's.
    """
    if labels is None:
        return [f"class {index}" for index in indices]
    if isinstance(labels, Mapping):
        known = _by_index(labels)
        return [known.get(index, f"class {index}") for index in indices]
    listed, asked = _listed(labels), list(indices)
    if asked and max(asked) >= len(listed):
        raise InputError(
            f"labels has {len(listed)} names, but class {max(asked)} is to be named; give one name per class of the "
            "model, or a dict that names some"
        )
    return [listed[index] for index in asked]


def every(labels: "ClassNames | None") -> tuple[str, ...] | None:
    """All names in order, for a mapping up to its largest index; ``None`` where there are none.

    Raises:
        InputError: ``labels`` is no `ClassNames`.
    """
    if isinstance(labels, Mapping):
        known = _by_index(labels)
        return tuple(known.get(index, f"class {index}") for index in range(max(known, default=-1) + 1)) or None
    return None if labels is None else _listed(labels)


def _listed(labels: object) -> tuple[str, ...]:
    names = numbers.items(labels)
    if names is None:
        raise InputError(f"labels is {labels!r}; give a sequence of names, or a dict from index to name")
    return tuple(map(_name, names))


def _by_index(labels: "Mapping[int, str] | Mapping[str, str]") -> dict[int, str]:
    known: dict[int, str] = {}
    for key, name in labels.items():
        index = int(key) if isinstance(key, str) and key.isascii() and key.isdigit() else numbers.integer(key)
        if index is None or index < 0:
            turned = "; turn it round: {index: name for name, index in labels.items()}" if isinstance(key, str) else ""
            raise InputError(f"labels has the key {key!r}, which is no class index{turned}")
        if index in known:
            raise InputError(f"labels names class {index} twice, by {key!r} and by another form of it; give it once")
        known[index] = _name(name)
    return known


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise InputError(f"labels holds {name!r} ({type(name).__name__}); a name is a str")
    return str(name)
