"""One process at a time writes into a run."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attribution.errors import OutputError
from attribution.paths import named

fcntl: Any
try:
    import fcntl
except ImportError:  # a system without it has no locks that die with their process
    fcntl = None

_NAME = ".lock"
_held: set[str] = set()
"""By this process, which the system lets lock a file again."""


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keep other runs out of a folder. The system frees the lock of a process that ends, however it ends.

    The lock is one of a range of bytes (``lockf``): children do not inherit it, and network file systems know it.

    Raises:
        OutputError: Another process, or another thread of this one, is running there.
    """
    key = os.path.realpath(root)
    if key in _held:
        raise OutputError(f"a run in {named(root)} is under way in this process; wait for it")
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(root / _NAME, flags, 0o666)
    except OSError as error:
        raise OutputError(f"cannot lock {named(root)}: {error.strerror or error}") from error
    try:
        _take(descriptor, root)
        _held.add(key)
        try:
            with suppress(OSError):  # a full disk has no room for a name, and holds the lock all the same
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            yield
        finally:
            _held.discard(key)
    finally:
        os.close(descriptor)


def _take(descriptor: int, root: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
        raise OutputError(
            f"a run in {named(root)} is under way by {holder}; wait for it, or give another folder"
        ) from None
    except OSError:  # a file system without locks: unique names and whole files still hold
        return
