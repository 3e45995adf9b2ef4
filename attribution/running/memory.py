"""Lack of memory as an error of this package, which says what to change."""

from collections.abc import Iterator
from contextlib import contextmanager

from attribution.errors import AttributionError, ResourceError
from attribution.running.execution import Execution, first_line, out_of_memory


@contextmanager
def room(who: str, execution: Execution) -> Iterator[None]:
    """Around work that may need more memory than there is.

    Raises:
        ResourceError: It does.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, AttributionError) or not out_of_memory(error):
            raise
        raise no_room(who, execution, error) from error


def no_room(who: str, execution: Execution, error: BaseException) -> ResourceError:
    """What to say to an error that is `out_of_memory`."""
    return ResourceError(
        f"{who} ran out of memory ({first_line(error)}); give Execution a smaller batch_size or memory_budget "
        f"(now {execution.batch_size} and {execution.budget} bytes)"
    )
