"""What a process does that is going to be killed; it imports no test."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from attribution import GradCAM, runs
from attribution.runs import files
from attribution.testing import small_cnn
from tests.runs.data import Noise

COUNT, SHARD = 200, 4
FIRST, LAST = 3, COUNT // SHARD + 2
"""Of the writes of a run, counted from 1, those that are shards: after the names and the settings, before the table."""

STEPS = ("opened", "part", "written", "flushed", "moved")
"""Of one write: the temporary file is there, half of its bytes, all of them, on the disk, and under the final name."""


def noise_run(root: Path, **options: Any) -> runs.OpenRun:
    """200 images of noise in shards of 4."""
    settled: dict[str, Any] = {"batch_size": SHARD, "progress": False, "threads": 1, **options}
    images = Noise(settled.pop("count", COUNT), size=(16, 16))
    return runs.run(small_cnn(), images, GradCAM(layers=("body",)), out=root, **settled)


def dying_run(root: Path, *, write: int, step: str, in_place: bool = False, **options: Any) -> None:
    """The same, by a process whose whole group is killed at a step of one of its writes.

    Args:
        root: The folder.
        write: Which write, counted from 1.
        step: One of `STEPS`.
        in_place: The mutant: files are written under their final names.
        options: Of `noise_run`.
    """
    if in_place:
        files.writing = _in_place
    _arm(write, step)
    noise_run(root, **options)


def command(root: Path, *, arguments: list[str]) -> None:
    """``attribution`` with some arguments, in the folder of the run's folder."""
    from attribution.cli import main

    os.chdir(root.parent)
    raise SystemExit(main(arguments))


@contextmanager
def _in_place(path: Path) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _arm(write: int, step: str) -> None:
    writing, opened, fsync, replace = files.writing, os.open, os.fsync, os.replace
    count = 0

    @contextmanager
    def counted(path: Path) -> Iterator[BinaryIO]:
        nonlocal count
        count += 1
        with writing(path) as file:
            yield file

    def at(name: str) -> bool:
        return count == write and step == name

    def open_(*arguments: Any, **options: Any) -> int:
        descriptor = opened(*arguments, **options)
        if at("opened"):
            _die()
        return descriptor

    def fsync_(fd: Any) -> None:
        if at("part"):
            os.ftruncate(fd, os.fstat(fd).st_size // 2)
        if at("part") or at("written"):
            _die()
        fsync(fd)
        if at("flushed"):
            _die()

    def replace_(*arguments: Any, **options: Any) -> None:
        replace(*arguments, **options)
        if at("moved"):
            _die()

    files.writing = counted
    os.open, os.fsync, os.replace = open_, fsync_, replace_


def _die() -> None:
    os.killpg(0, signal.SIGKILL)
    time.sleep(600)
