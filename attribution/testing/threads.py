"""``together``: several pieces of work at the same time, with threads that take turns as often as they can."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def together(*works: Callable[[], object], rounds: int = 1) -> list[BaseException]:
    """Do each piece of work in a thread of its own, all at the same time, and tell what they raised.

    The threads begin at once, and the interpreter switches between them every microsecond.

    Args:
        works: One per thread.
        rounds: How often each is done; a thread ends at the first exception.
    """
    errors: list[BaseException] = []
    start = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        try:
            start.wait()
            for _ in range(rounds):
                work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    with _restless():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return errors


@contextmanager
def _restless() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
