"""What a user names as ``MODULE:NAME``."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from attribution.errors import InputError


def named(module_name: str, name: str, text: str) -> tuple[Any, list[str]]:
    """What a module calls so, ``None`` where there is nothing; and the names of what in it can be called.

    Args:
        module_name: It is imported.
        name: Of something in it.
        text: As the user typed both.

    Raises:
        InputError: The module cannot be imported, or fails when it is asked for the name.
    """
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"cannot import {module_name}: {error}; install it, or run from the folder it lies in"
        ) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a stranger's module may also call exit()
        raise InputError(f"cannot import {module_name}: {type(error).__name__}: {error}") from error
    try:
        found = getattr(module, name, None)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # so may its __getattr__
        raise InputError(f"{text} cannot be looked up: {type(error).__name__}: {error}") from error
    return found, [each for each, value in vars(module).items() if callable(value)]


@contextmanager
def folder_importable() -> Iterator[None]:
    """A module of the working folder can be named, as with ``python -m``."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path.remove("")
