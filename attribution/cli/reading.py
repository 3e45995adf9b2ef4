"""``--labels``, ``--size``, ``--mean``, ``--std``: how photos reach a model, and what its classes are called."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attribution.errors import InputError
from attribution.paths import fault, named

if TYPE_CHECKING:  # torch is imported where the options are right only
    from attribution.class_names import ClassNames
    from attribution.zoo import LoadedModel

_LABELS = "--labels takes a file with a name on each line, or JSON"
_SIZE = re.compile(r"(\d{1,6})(?:\s*[x×,]\s*(\d{1,6}))?")


@dataclass(frozen=True)
class Typed:
    """The options as typed.

    Args:
        labels: A file.
        size: ``224``, or ``HEIGHTxWIDTH``.
        mean: ``0.485,0.456,0.406``, or one number for all channels.
        std: Likewise.
    """

    labels: Path | None = None
    size: str | None = None
    mean: str | None = None
    std: str | None = None

    def refuse(self) -> None:
        """Refuse what is wrong on the face of it.

        Raises:
            InputError: A file is missing, or a text names no size or no numbers.
        """
        if self.labels is not None and (found := fault(self.labels)):
            raise InputError(f"{named(self.labels)} {found}; {_LABELS}")
        for option, text in (("--mean", self.mean), ("--std", self.std)):
            if text is not None:
                _numbers(option, text, 1)
        if self.size is not None:
            _size(self.size)

    def applied(self, loaded: "LoadedModel") -> "LoadedModel":
        """The model with whatever was typed in place of its own.

        Raises:
            InputError: An option cannot be read.
        """
        from attribution.zoo.adapted import adapted

        channels = len(loaded.mean)
        return adapted(
            loaded,
            size=None if self.size is None else _size(self.size),
            mean=None if self.mean is None else _numbers("--mean", self.mean, channels),
            std=None if self.std is None else _numbers("--std", self.std, channels),
            labels=None if self.labels is None else class_names_in(self.labels),
        )


UNCHANGED = Typed()
"""Nothing was typed: photos reach the model by its own transform, and its classes have their own names."""


def class_names_in(path: Path) -> "ClassNames":
    """Class names from a file: JSON, or one on each line.

    Raises:
        InputError: It cannot be read, or names no classes.
    """
    from attribution import class_names

    if found := fault(path):
        raise InputError(f"{named(path)} {found}; {_LABELS}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = json.loads(text) if text.lstrip()[:1] in ("[", "{") else text.splitlines()
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{named(path)} cannot be read: {error}") from error
    if not class_names.every(names):
        raise InputError(f"{named(path)} names no classes")
    return names


def _size(text: str) -> tuple[int, int]:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InputError(f"--size {text!r}: expected pixels such as 224, or HEIGHTxWIDTH such as 320x480")
    return int(found[1]), int(found[2] or found[1])


def _numbers(option: str, text: str, channels: int) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text!r}: expected numbers such as 0.485,0.456,0.406") from None
    return values * channels if len(values) == 1 else values
