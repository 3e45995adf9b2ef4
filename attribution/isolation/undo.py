"""``Undo``: what is given back on the way out, noted before anything is changed."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attribution.running.execution import lost


class Undo:
    """Steps that give back what a run changes, the latest first.

    An interrupt may arrive between any two instructions, also between a call and the note that it returned. So a step
    is noted *before* its change is made, does nothing where the change was not made, and may run twice. Who holds an
    ``Undo`` calls `back` in two nested ``finally`` of its own frame: an interrupt inside the first leaves the rest to
    the second. A context manager alone does not suffice, since an interrupt may hit its own enter or exit.
    """

    def __init__(self) -> None:
        self._steps: list[Callable[[], None]] = []

    def add(self, step: Callable[[], None]) -> None:
        """Note a step. It must be harmless now, and when it runs twice."""
        self._steps.append(step)

    def inner(self) -> "Undo":
        """Steps that may be run before all others, and are with these at the latest."""
        found = Undo()
        self.add(found.back)
        return found

    def back(self) -> None:
        """Run all steps. Each is forgotten once it has run, so that an interrupted one runs again.

        Raises:
            Exception: The first error of a step; the others have run.
        """
        failed: Exception | None = None
        while self._steps:
            try:
                self._steps[-1]()
            except Exception as error:
                failed = failed or error
            self._steps.pop()
        if failed is not None and not (lost(failed) and lost(sys.exc_info()[1])):  # it was told already
            raise failed


@contextmanager
def undoing() -> Iterator[Undo]:
    """An ``Undo`` for a block. See there why whoever must not miss an interrupt writes the two ``finally`` out."""
    undo = Undo()
    try:
        try:
            yield undo
        finally:
            undo.back()
    finally:
        undo.back()
