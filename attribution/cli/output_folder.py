"""Where results go: named after their images, and visible only when they are whole."""

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from attribution.errors import OutputError
from attribution.paths import named, short


def stems(paths: Sequence[Path]) -> list[str]:
    """A name for each image's results: its stem, cut where long; where that is taken, ``-2``, ``-3``, … behind it."""
    names: list[str] = []
    for path in paths:
        stem = short(path.stem)
        name, count = stem, 1
        # Many file systems take Cup and cup for one name.
        while name.casefold() in {other.casefold() for other in names}:
            count += 1
            name = f"{stem}-{count}"
        names.append(name)
    return names


@dataclass(frozen=True)
class ResultFolder:
    """A folder for results and, inside it, a hidden one where they are made.

    Attributes:
        path: where results appear.
        stage: where they are written first.
    """

    path: Path
    stage: Path

    def publish(self) -> list[Path]:
        """Move all that lies in ``stage`` to its place.

        Raises:
            OutputError: a folder has the name of a result, or the disk refuses.
        """
        try:
            made = sorted(self.stage.iterdir())
            places = [self.path / file.name for file in made]
            for place in places:
                if place.is_dir():
                    raise OutputError(f"{place} is a folder; move it away, or choose another --out")
            for file, place in zip(made, places, strict=True):
                os.replace(file, place)
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(f"cannot write into {self.path}: {error.strerror or error}") from error
        return places


@contextmanager
def result_folder(path: Path) -> Iterator[ResultFolder]:
    """Make a folder for results before any work; whatever was not published is removed at the end, also by a signal.

    Raises:
        OutputError: the folder cannot be made or written to.
    """
    missing: list[Path] = []
    # Named before it is made: an interrupt may come between the two.
    stage = path / f".attribution-{secrets.token_hex(4)}"
    try:
        try:
            missing += [folder for folder in (path, *path.parents) if not folder.exists()]
            path.mkdir(parents=True, exist_ok=True)
            stage.mkdir(mode=0o700)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"cannot write into the folder {named(path)}: {reason}; choose another --out") from error
        yield ResultFolder(path, stage)
    finally:
        with suppress(ValueError):
            shutil.rmtree(stage, ignore_errors=True)
        with suppress(OSError, ValueError):  # not empty: results were published
            for folder in missing:
                folder.rmdir()
