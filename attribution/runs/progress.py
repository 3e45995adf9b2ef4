"""``Progress``: how far a run is, how fast, and how long it will take."""

import sys
import time
from collections.abc import Callable
from typing import Any

_EVERY = 30.0
"""Seconds between two lines where nobody watches, as in the log of a cluster."""


class Progress:
    """A bar on a terminal, a line now and then elsewhere.

    Args:
        total: Items of this process.
        title: Before the bar.
        silent: Show nothing.
        clock: Seconds.
    """

    def __init__(
        self, total: int, title: str, *, silent: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total, self._title, self._silent, self._clock = total, title, silent, clock
        self._done, self._failed = 0, 0
        self._start = self._last = clock()
        self._bar: Any = None
        if sys.stderr is not None and sys.stderr.isatty() and not silent:
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=title, unit="item", file=sys.stderr)

    def add(self, items: int, failed: int) -> None:
        """Some items are done, of which some failed."""
        self._done, self._failed = self._done + items, self._failed + failed
        if self._bar is not None:
            self._bar.update(items)
            if self._failed:
                self._bar.set_postfix_str(f"{self._failed} failed")
        elif not self._silent and (self._clock() - self._last >= _EVERY or self._done == self._total):
            self._last = self._clock()
            self.say(self.line())

    def line(self) -> str:
        """``"run: 1200/5000 items, 31 failed [01:40<05:16, 12.0 items/s]"``."""
        from tqdm import tqdm

        elapsed = max(self._clock() - self._start, 1e-9)
        rate = self._done / elapsed
        remaining = (self._total - self._done) / rate if rate else 0.0
        failed = f", {self._failed} failed" if self._failed else ""
        times = f"{tqdm.format_interval(elapsed)}<{tqdm.format_interval(remaining)}"
        return f"{self._title}: {self._done}/{self._total} items{failed} [{times}, {rate:.3g} items/s]"

    def say(self, text: str) -> None:
        """A line beside the bar."""
        if self._silent or sys.stderr is None:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
