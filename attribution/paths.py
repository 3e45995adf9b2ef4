"""Files that a user names: looked at before they are opened, so that none blocks and every fault has words."""

import os
import stat
from pathlib import Path

from attribution.errors import OutputError

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
MISSING = "does not exist"


def fault(path: object) -> str | None:
    """Why there is no regular file to read, as the end of a sentence; ``None`` where there is one.

    Links are followed. Nothing is opened: a named pipe would wait for a writer.
    """
    if not isinstance(path, str | os.PathLike):
        return f"is not a path but a {type(path).__name__}"
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except OSError as error:
        return f"cannot be opened: {error.strerror or error}"
    except ValueError as error:
        return f"is not a path: {error}"
    return None if stat.S_ISREG(mode) else f"is no regular file but {_KINDS.get(stat.S_IFMT(mode), 'something else')}"


def writable(path: object, suffixes: tuple[str, ...], why: str) -> Path:
    """A path where a file can be written.

    Args:
        path: As given.
        suffixes: Of which the file must have one, whether in small letters or large.
        why: Follows what the suffix is not.

    Raises:
        OutputError: It is no path, has another suffix, its folder does not exist, or a folder has its name.
    """
    try:
        place = Path(path)  # type: ignore[arg-type]  # refused below
        folder, taken = place.parent.is_dir(), place.is_dir()
    except (TypeError, ValueError, OSError) as error:
        raise OutputError(f"cannot write {named(path)}: {error}; give the path of a file") from error
    if place.suffix.lower() not in suffixes:
        raise OutputError(f"{named(place.name)} does not end in {suffixes[0]}, {why}")
    if not folder:
        raise OutputError(f"the folder {named(place.parent)} does not exist; make it first")
    if taken:
        raise OutputError(f"{named(place)} is a folder; give the name of a file")
    return place


def named(path: object) -> str:
    """A path as messages show it: one printable line, cut in the middle where it is very long."""
    text = str(path) if isinstance(path, str | os.PathLike) else repr(path)
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return text if len(text) <= 200 else f"{text[:100]}…{text[-99:]}"


def short(name: str, most: int = 120) -> str:
    """A file's name cut to ``most`` bytes, so that it has room for suffixes; file systems take 255."""
    return os.fsencode(name)[:most].decode(errors="ignore") if len(os.fsencode(name)) > most else name
