"""Files that appear whole or not at all, and never through a link."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from attribution.errors import AttributionError, OutputError
from attribution.paths import named

_TEMPORARY = ".writing-"


def write(path: Path, data: bytes) -> None:
    """Put bytes at a name: written beside it, flushed to the disk, and moved there in one step.

    A link that lies at the name is replaced, not followed.

    Raises:
        OutputError: The disk refuses; nothing is left of the attempt.
    """
    with writing(path) as file:
        file.write(data)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """The same as `write` for what is written piece by piece. What raises inside leaves nothing behind.

    Raises:
        OutputError: The disk refuses.
    """
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(6)}")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _settle(path.parent)
    except OSError as error:
        if isinstance(error, AttributionError):
            raise
        raise OutputError(f"cannot write {named(path)}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def folder(path: Path) -> Path:
    """Make a folder, or take the one that is there.

    Raises:
        OutputError: Something else has its name, a link included, or the disk refuses.
    """
    try:
        path.mkdir(exist_ok=True)
        mode = os.lstat(path).st_mode
    except OSError as error:
        raise OutputError(f"cannot make the folder {named(path)}: {error.strerror or error}") from error
    if not stat.S_ISDIR(mode):
        raise OutputError(f"{named(path)} is no folder but a link; a run writes inside its folder only: remove it")
    return path


def remove(path: Path) -> None:
    """Remove a file, where there is one.

    Raises:
        OutputError: The disk refuses.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove {named(path)}: {error.strerror or error}") from error


def regular(path: Path) -> bool:
    """Whether a regular file lies there, and no link to one."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def sweep(path: Path) -> None:
    """Remove what a killed process left half written."""
    with suppress(OSError):
        for entry in os.scandir(path):
            if entry.name.startswith(_TEMPORARY):
                with suppress(OSError):
                    os.unlink(entry.path)


def _settle(path: Path) -> None:
    """Flush a folder, so that a name in it outlives a loss of power; not all file systems can."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
