"""How a technique is run, never what it computes."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from attribution import numbers
from attribution.errors import AttributionError, InputError, ModelError

CPU_WINDOWS = 16
"""Occluded images per forward on a CPU: more of them fall out of its caches and are slower (``docs/benchmarks.md``)."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Size, precision and manners of one run. Changing any field leaves the question as it is.

    Args:
        batch_size: Images, windows or filters per forward (the technique says which); ``None``: all images
            or filters at once, windows from shapes and ``memory_budget``.
        memory_budget: Bytes of activations that one forward may need, ≥ 1. A constant rather than the free
            memory, so that results do not depend on what else runs.
        autocast: Run the model under autocast to ``torch.bfloat16`` or ``torch.float16``; ``None``: never,
            also inside a caller's autocast.
        incremental: Let an occlusion engine recompute only what a window changes, where it has one.
        deterministic: Ask torch for deterministic kernels during the run.
        progress: Show a progress bar on long work.
        output: The key or index of the logits where the model returns a dict, tuple or list.
        offload: Bring the maps of each forward to the host while the next one runs, so that a device holds those of
            one ``batch_size`` only. Nothing to do where the model is on the CPU.

    Raises:
        InputError: A field is out of its range.
    """

    batch_size: int | None = None
    memory_budget: int = 2**30
    autocast: torch.dtype | None = None
    incremental: bool = True
    deterministic: bool = False
    progress: bool = False
    output: str | int | None = None
    offload: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "memory_budget"):
            value = getattr(self, name)
            if value is None and name == "batch_size":
                continue
            number = numbers.integer(value)
            if number is None or number < 1:
                raise InputError(f"Execution.{name} is {value!r}; give an int of at least 1")
            object.__setattr__(self, name, number)
        for name in ("incremental", "deterministic", "progress", "offload"):
            answer = numbers.flag(getattr(self, name))
            if answer is None:
                raise InputError(f"Execution.{name} is {getattr(self, name)!r}; give True or False")
            object.__setattr__(self, name, answer)
        if self.autocast not in (None, torch.bfloat16, torch.float16):
            raise InputError(f"Execution.autocast is {self.autocast!r}; give torch.bfloat16, torch.float16 or None")
        if self.output is not None and not isinstance(self.output, str):
            index = numbers.integer(self.output)
            if index is None:
                raise InputError(f"Execution.output is {self.output!r}; give a key (str), an index (int) or None")
            object.__setattr__(self, "output", index)

    def chunk(self, item_bytes: int, items: int, *, most: int | None = None) -> int:
        """How many of ``items`` go into one forward: ``batch_size``, else what fits ``memory_budget``.

        Args:
            item_bytes: Bytes of activations that one item needs.
            items: How many there are, ≥ 1.
            most: An upper bound where no ``batch_size`` is given, e.g. `CPU_WINDOWS`.
        """
        fitting = self.memory_budget // max(item_bytes, 1)
        wanted = self.batch_size or min(fitting, most or fitting)
        return max(1, min(wanted, items))


_NO_MEMORY = re.compile(r"can't allocate memory|bad_alloc|could not create a primitive(?! descriptor)")
"""Torch's own allocator, the C++ library's, and oneDNN where it has no room for a convolution's code or scratch."""


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory, on CUDA or on the host."""
    return isinstance(error, torch.OutOfMemoryError) or bool(_NO_MEMORY.search(str(error)))


@contextmanager
def running(inputs: Tensor) -> Iterator[None]:
    """Around one forward of the user's model: what torch refuses becomes a `ModelError` that names the inputs.

    Raises:
        ModelError: The model fails on these inputs. Lack of memory is passed on as it is.
    """
    try:
        yield
    except AttributionError:
        raise
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"the model failed on inputs of shape {tuple(inputs.shape)}, {inputs.dtype}: {reason}"
        ) from error
