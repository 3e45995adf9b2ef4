"""``Stopping``: signals that end a run after the shard that is under way."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from attribution.runs import files

_FLAG = ".stop"
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopping:
    """Whether a run shall end, told to all its processes by a file in its folder.

    Args:
        root: The folder.
        tell: Takes a line for the user.
    """

    def __init__(self, root: Path, tell: Callable[[str], None]) -> None:
        self._flag, self._tell = root / _FLAG, tell
        self.signal: int | None = None
        """The signal that this process received."""

    @property
    def asked(self) -> bool:
        """Whether to compute no other shard."""
        return self.signal is not None or self._flag.exists()

    def begin(self) -> None:
        """Forget what a run before was told.

        Raises:
            OutputError: The disk refuses.
        """
        files.remove(self._flag)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGHUP ask to stop; the second one interrupts at once. Ignored signals stay ignored."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        try:
            self.listen()
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def listen(self) -> None:
        """Take the signals, also from whoever took them since."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        self._tell("stopping after the shard that is under way; once more stops at once")

    def spread(self) -> None:
        """Tell the other processes of the run."""
        if self.signal is not None and not self._flag.exists():
            files.write(self._flag, b"")
