"""Parts of what a layer gives or is given: one item of a tuple or mapping, one argument."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

Key = str | int


def item(value: Any, keys: Sequence[Key]) -> Any:
    """What lies under keys, one after the other; ``None`` where nothing does."""
    for key in keys:
        place = _place(value, key)
        if isinstance(value, Mapping) and place not in value:
            return None
        try:
            value = value[place]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def replaced(value: Any, keys: Sequence[Key], tensor: Tensor) -> Any:
    """The same with another tensor under keys, in containers of their own; what is beside it is shared."""
    if not keys:
        return tensor
    place = _place(value, keys[0])
    new = replaced(value[place], keys[1:], tensor)
    if isinstance(value, tuple):
        held = [new if index == place else each for index, each in enumerate(value)]
        return type(value)(*held) if hasattr(value, "_fields") else tuple(held)
    value = copy.copy(value)
    value[place] = new
    return value


def arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[Key, Any]:
    """What a module is given, by position or keyword."""
    given: dict[Key, Any] = dict(enumerate(args))
    given.update(kwargs.items())
    return given


def only_tensor(given: Mapping[Key, Any]) -> tuple[Key, ...]:
    """The key of the one tensor among arguments; none where there are several, or none."""
    found = [key for key, value in given.items() if isinstance(value, Tensor)]
    return tuple(found) if len(found) == 1 else ()


def _place(value: Any, key: Key) -> Key:
    """The key of an item: in a mapping without that number, the number's text, else its position if items have one."""
    if not isinstance(value, Mapping) or not isinstance(key, int) or key in value:
        return key
    if str(key) in value or hasattr(value, "__missing__"):
        return str(key)
    try:
        found = value[key]  # as the outputs of Transformers' models are indexed
    except (KeyError, IndexError, TypeError):
        return key
    return next((place for place in value if value[place] is found), key)
