"""A disk that refuses any call of a run, each in turn: a typed end, nothing half written, and the same bytes after."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from attribution.errors import OutputError
from tests.runs.asked import ran
from tests.runs.data import contents

CALLS = ("open", "fdopen", "fsync", "replace", "ftruncate", "pwrite", "mkdir", "unlink", "scandir")


class Disk:
    """Counts the calls of ``os`` on what lies in a folder, and refuses one of them."""

    def __init__(self, root: Path, refused: int, code: int) -> None:
        self.root, self.refused, self.code = str(root), refused, code
        self.calls, self.name = 0, ""

    def counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """A call that may be refused."""

        def call(first: Any, *rest: Any, **options: Any) -> Any:
            place = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else os.fspath(first)
            if place.startswith(self.root):
                self.calls += 1
                if self.calls == self.refused:
                    self.name = name
                    raise OSError(self.code, os.strerror(self.code), place)
            return real(first, *rest, **options)

        return call

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """The disk is in use."""
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, self.counted(name, getattr(os, name)))
            yield


def how_it_ends(out: Path) -> str | None:
    """What a run says that cannot write; ``None``: it could."""
    try:
        ran(out)
    except OutputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("code", [errno.ENOSPC, pytest.param(errno.EIO, marks=[pytest.mark.slow])])
def test_each_call_in_turn(whole: Path, tmp_path: Path, code: int) -> None:
    refused: dict[str, int] = {}
    for number in range(1, 200):
        out = tmp_path / f"{number}"
        disk = Disk(out, number, code)
        with disk.mounted():
            said = how_it_ends(out)
        if not disk.name:
            break
        refused[disk.name] = refused.get(disk.name, 0) + 1
        assert contents(out).items() <= contents(whole).items(), (number, disk.name)
        assert disk.name == "unlink" or not list(out.rglob(".writing-*"))
        assert said is None or os.strerror(code) in said, disk.name
        if said is None:  # what is said for the log of another process, or flushed for a loss of power
            assert (out / "scores.parquet").read_bytes() == (whole / "scores.parquet").read_bytes()
            assert disk.name not in ("fdopen", "replace", "mkdir"), number
        ran(out)
        assert contents(out) == contents(whole)
        assert (out / "scores.parquet").read_bytes() == (whole / "scores.parquet").read_bytes()
    else:
        raise AssertionError(f"no end: {refused}")
    assert set(refused) == set(CALLS)
    assert refused["replace"] == 6  # names, settings, three shards, the table
