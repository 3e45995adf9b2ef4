"""``attribution check``: the conformance kit from the shell."""

from pathlib import Path
from typing import Any

import typer

from attribution.attributor import Attributor
from attribution.cli.imports import folder_importable, named
from attribution.errors import InputError, nearest
from attribution.testing import run_checks
from attribution.zoo.script import load_function


def run(text: str, device: str = "cpu") -> bool:
    """Print one line per check on the technique's ``example()``, then a sum; whether all passed.

    Args:
        text: ``module:Class`` or ``file.py:Class``.
        device: Where the models of the checks lie.

    Raises:
        InputError: There is no such module, class or device, it is no attributor, or its technique has no example.
    """
    with folder_importable():
        cls = _loaded(text)
        failed = total = 0
        for outcome in run_checks(cls, device=device):
            total += 1
            failed += not outcome.good
            typer.echo(f"ok    {outcome.name}" if outcome.good else f"FAIL  {outcome.text}")
    typer.echo(f"{cls.technique_type.name}.{cls.backend}: {total - failed} of {total} checks passed")
    return not failed


def _loaded(text: str) -> type[Attributor[Any]]:
    module_name, colon, class_name = text.rpartition(":")
    if not (colon and module_name and class_name):
        raise InputError(
            f"{text!r} names no attributor; write MODULE:CLASS, e.g. my_package.my_module:MyGradCAM, or FILE.py:CLASS"
        )
    cls: object
    if module_name.endswith(".py"):
        cls, known = load_function(Path(module_name), class_name), list[str]()
    else:
        cls, known = named(module_name, class_name, text)
    if not (isinstance(cls, type) and issubclass(cls, Attributor)):
        raise InputError(f"{module_name} has no attributor {class_name!r}{nearest(class_name, known)}")
    if cls.__abstractmethods__:
        raise InputError(f"{text} does not implement {', '.join(sorted(cls.__abstractmethods__))}")
    return cls
