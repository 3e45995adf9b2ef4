"""Errors that tell of another process of the run that has ended."""

import torch

from attribution.errors import AttributionError, ResourceError
from attribution.running.execution import first_line


def of_process(error: Exception, workers: int) -> ResourceError | None:
    """What a user should read instead of an error; ``None``: it tells of no lost process.

    Args:
        error: What the engine raised.
        workers: How many processes read. One that is killed while it hands over a shard breaks off a connection.
    """
    if isinstance(error, AttributionError):
        return None
    told = f"({first_line(error)})"
    broken_off = isinstance(error, ConnectionError | EOFError | FileNotFoundError) and workers > 0
    if broken_off or (isinstance(error, RuntimeError) and "DataLoader worker" in str(error)):
        return ResourceError(
            "a process that reads items is gone, as where memory ends; what is done stays: give the same command "
            f"again, with fewer workers {told}"
        )
    if isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
        return ResourceError(
            "another process of the run is gone; what is done stays: give the same command again, with any number of "
            f"processes {told}"
        )
    return None
