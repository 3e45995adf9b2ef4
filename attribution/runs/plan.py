"""``Plan``: how a run is cut into shards and spread over processes."""

import os
from dataclasses import dataclass

from attribution import numbers
from attribution.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a run is carried out; only ``batch_size`` and ``threads`` are settled with it.

    Args:
        batch_size: Items that go through the model together, and lie in one file; ``"auto"``: that of the run that is
            there, else 8 on a CPU and 32 elsewhere.
        threads: Of torch on the host; ``None``: as many as the run has that is there, else those that torch has now,
            shared by the ``devices``.
        devices: Processes on each machine: one per GPU, or that many on the CPU.
        num_nodes: Machines.
        strategy: Lightning's; ``"auto"``: ``"ddp"`` where there are several processes.
        workers: Processes that read items, for each that computes.
        progress: Tell on standard error how far it is.

    Raises:
        InputError: A number is out of its range.
    """

    batch_size: int | str = "auto"
    threads: int | None = None
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    workers: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("threads", 1), ("devices", 1), ("num_nodes", 1), ("workers", 0)):
            value = getattr(self, name)
            if (name, value) in (("batch_size", "auto"), ("threads", None)):
                continue
            number = numbers.integer(value)
            if number is None or number < least:
                auto = ", or 'auto'" if name == "batch_size" else ""
                raise InputError(f"{name} is {value!r}; give an int of at least {least}{auto}")
            object.__setattr__(self, name, number)

    @property
    def processes(self) -> int:
        """All of them."""
        return self.devices * self.num_nodes


def leads() -> bool:
    """Whether this process is the one of the run that settles it: rank 0, or the only one."""
    if "RANK" in os.environ:  # torchrun
        return int(os.environ["RANK"]) == 0
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        return int(os.environ.get("SLURM_PROCID", "0")) == 0
    return int(os.environ.get("NODE_RANK", "0")) == int(os.environ.get("LOCAL_RANK", "0")) == 0
