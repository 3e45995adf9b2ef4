"""``--device sim`` and ``--device sim:1``, for the tests and the benchmarks."""

import pytest
import torch

from tests.simulated_device.device import NoCompiler, load


def prepare(config: pytest.Config) -> str:
    """The device that ``--device`` names, made known to torch where it is simulated; ends pytest where it is none."""
    name: str = config.getoption("--device")
    try:
        if name.partition(":")[0] == "sim":
            load()
    except NoCompiler as error:
        raise pytest.UsageError(f"--device {name}: {error}") from error
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise pytest.UsageError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return name
