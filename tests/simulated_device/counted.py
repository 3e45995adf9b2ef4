"""``counted``: kernels that a block launches, and where it makes the host wait for the device."""

import ctypes
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch

from tests.simulated_device.device import load

_OWN = (str(Path(torch.__file__).parent), str(Path(__file__).parent / "device.py"), __file__)
_HEAR = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p)


@dataclass
class Seen:
    """What a block asked of the simulated devices.

    Views, allocations and copies to and from the host are no launches.

    Attributes:
        operations: Operation → how often it was launched.
        lines: (what was waited for, ``file:line function`` that asked) → how often.
        launch_lines: ``file:line function`` → launches.
        copies: ``"to device"`` and ``"to host"`` → how often, waited for or not.
    """

    operations: Counter[str] = field(default_factory=Counter)
    lines: Counter[tuple[str, str]] = field(default_factory=Counter)
    launch_lines: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)

    @property
    def launches(self) -> int:
        return self.operations.total()

    @property
    def waits(self) -> int:
        return self.lines.total()


@contextmanager
def counted() -> Iterator[Seen]:
    """Count in a block: ``with counted() as seen: …``; then ``seen.launches``, ``seen.waits`` and ``seen.lines``."""
    library, seen = load(), Seen()

    def hear(kind: bytes, name: bytes) -> None:
        what = name.decode().removeprefix("aten::")
        if kind == b"launch":
            seen.operations[what] += 1
            seen.launch_lines[_asking()] += 1
        elif kind == b"wait":
            seen.lines[what, _asking()] += 1
        else:
            seen.copies[what] += 1

    heard = _HEAR(hear)
    library.sim_listen(heard)
    try:
        yield seen
    finally:
        library.sim_listen(None)


def _asking() -> str:
    """The innermost line outside of torch; autograd's own threads have none."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    if frame is None:
        return "autograd"
    path = Path(frame.f_code.co_filename)
    return f"{'/'.join(path.parts[-2:])}:{frame.f_lineno} {frame.f_code.co_name}"
