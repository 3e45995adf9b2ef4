"""Techniques by the names of their results."""

from collections.abc import Mapping
from typing import Any

from attribution.errors import InputError
from attribution.technique import Technique


def techniques_by_name(given: Any) -> dict[str, Technique]:
    """From one technique, several, or a mapping.

    Raises:
        InputError: Something in it is no technique, or two have one name.
    """
    if isinstance(given, Mapping):
        listed = list(given.items())
    else:
        several = [given] if isinstance(given, Technique) or not isinstance(given, list | tuple) else given
        listed = [(getattr(each, "name", None), each) for each in several]
    found: dict[str, Technique] = {}
    for name, each in listed:
        if not isinstance(each, Technique):
            raise InputError(f"technique is {each!r}; give an instance such as GradCAM()")
        if name in found:
            raise InputError(f"two techniques are called {name!r}; give a mapping from names to techniques")
        found[name] = each
    if not found:
        raise InputError("there is no technique; give one, such as GradCAM()")
    return found
