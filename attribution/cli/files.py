"""Where results go: named after their images, and visible only when they are whole."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from attribution.errors import OutputError


def stems(paths: Sequence[Path]) -> list[str]:
    """A name for the results of each image: its stem; where that is taken, ``-2``, ``-3``, … behind it."""
    names: list[str] = []
    for path in paths:
        name, count = path.stem, 1
        # Many file systems take Cup and cup for one name.
        while name.casefold() in {other.casefold() for other in names}:
            count += 1
            name = f"{path.stem}-{count}"
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
        made = sorted(self.stage.iterdir())
        places = [self.path / file.name for file in made]
        for place in places:
            if place.is_dir():
                raise OutputError(f"{place} is a folder; move it away, or choose another --out")
        try:
            for file, place in zip(made, places, strict=True):
                os.replace(file, place)
        except OSError as error:
            raise OutputError(f"cannot write into {self.path}: {error.strerror or error}") from error
        return places


@contextmanager
def result_folder(path: Path) -> Iterator[ResultFolder]:
    """Make a folder for results before any work; whatever was not published is removed at the end.

    Raises:
        OutputError: the folder cannot be made or written to.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".attribution-", dir=path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write into the folder {path}: {reason}; choose another --out") from error
    try:
        yield ResultFolder(path, stage)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        with suppress(OSError):  # not empty: results were published
            for folder in missing:
                folder.rmdir()
