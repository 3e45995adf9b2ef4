"""How a technique is run, never what it computes."""

import re
from collections.abc import Iterator
from dataclasses import InitVar, dataclass, replace
from itertools import pairwise
from types import FrameType
from typing import Literal, Self

import torch
from torch import Tensor

from attribution import numbers
from attribution.errors import AttributionError, InputError, ModelError
from attribution.inputs.inputs import Inputs

HOST_BUDGET = 2**30
"""Bytes of activations in one forward on a CPU, unless the user says."""

DEVICE_PART = 8
"""One part in so many of an accelerator: activations are estimated, and weights and maps lie there too."""

CPU_WINDOWS = 16
"""Occluded images per forward on a CPU: more of them fall out of its caches and are slower (``docs/benchmarks.md``)."""

CPU_ROWS = 8
"""Rows of a forward that is differentiated on a CPU, likewise: the graph holds twice as much."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Size, precision and manners of one run. Changing any field leaves the question as it is.

    Args:
        batch_size: Images, windows or filters per forward (the technique says which); ``None``: all images
            or filters at once, windows from shapes and ``memory_budget``.
        memory_budget: Bytes of activations that one forward may need, ≥ 1. ``None``: `HOST_BUDGET` on a CPU, and the
            `DEVICE_PART`-th part of an accelerator's whole memory. A constant rather than the free memory, so that
            results do not depend on what else runs.
        autocast: Run the model under autocast to ``torch.bfloat16`` or ``torch.float16``; ``None``: never,
            also inside a caller's autocast.
        incremental: Let an occlusion engine recompute only what a window changes, where it has one and that promises
            to be faster; ``"always"``: also where it does not.
        lowered: Let techniques of many forwards make them by a copy of the network with folded batch norms and packed
            convolutions, where that is found to say what the model says; float32 on a CPU only.
        deterministic: Ask torch for deterministic kernels during the run.
        progress: Show a progress bar on long work.
        offload: Bring the maps of each forward to the host while the next one runs, so that a device holds those of
            one ``batch_size`` only. Nothing to do where the model is on the CPU.
        graphs: Let an engine capture on CUDA what a call launches, and replay it in later calls of the same question.
            Small batches are faster; memory for one more forward is held as long as the model is known.

    Raises:
        InputError: A field is out of its range.
    """

    batch_size: int | None = None
    memory_budget: int | None = None
    autocast: torch.dtype | None = None
    incremental: bool | Literal["always"] = True
    lowered: bool = True
    deterministic: bool = False
    progress: bool = False
    output: InitVar[None] = None
    offload: bool = False
    graphs: bool = False

    def __post_init__(self, output: None) -> None:
        if output is not None:
            raise InputError(
                f"Execution has no output any more: it says of which number is spoken, so that it went to the target; "
                f"give target=ClassScore(…, output={output!r})"
            )
        for name in ("batch_size", "memory_budget"):
            value = getattr(self, name)
            if value is None:
                continue
            number = numbers.integer(value)
            if number is None or number < 1:
                raise InputError(f"Execution.{name} is {value!r}; give an int of at least 1")
            object.__setattr__(self, name, number)
        for name in ("incremental", "lowered", "deterministic", "progress", "offload", "graphs"):
            value = getattr(self, name)
            if name == "incremental" and isinstance(value, str) and value == "always":
                continue
            answer = numbers.flag(value)
            if answer is None:
                also = ", or 'always'" if name == "incremental" else ""
                raise InputError(f"Execution.{name} is {value!r}; give True or False{also}")
            object.__setattr__(self, name, answer)
        if self.autocast not in (None, torch.bfloat16, torch.float16):
            raise InputError(f"Execution.autocast is {self.autocast!r}; give torch.bfloat16, torch.float16 or None")

    def on(self, device: torch.device) -> Self:
        """The same with the memory budget of an accelerator filled in, if the user left it open and torch tells it."""
        if self.memory_budget is not None or device.type in ("cpu", "meta"):
            return self
        whole = _whole_memory(device)
        return self if whole is None else replace(self, memory_budget=max(1, whole // DEVICE_PART))

    @property
    def budget(self) -> int:
        """``memory_budget``; where that was left open, a CPU's."""
        return HOST_BUDGET if self.memory_budget is None else self.memory_budget

    def chunk(self, item_bytes: int, items: int, *, most: int | None = None, beside: int = 0) -> int:
        """How many of ``items`` go into one forward: ``batch_size``, else what fits ``memory_budget``.

        Args:
            item_bytes: Bytes of activations that one item needs.
            items: How many there are, ≥ 1.
            most: An upper bound where no ``batch_size`` is given, e.g. `CPU_WINDOWS`.
            beside: Bytes that lie there all the while.
        """
        fitting = max(0, self.budget - beside) // max(item_bytes, 1)
        wanted = self.batch_size or min(fitting, most or fitting)
        return max(1, min(wanted, items))


def _whole_memory(device: torch.device) -> int | None:
    """All bytes of an accelerator, in use or not; ``None`` where torch does not tell."""
    properties = getattr(torch.get_device_module(device), "get_device_properties", None)
    found = getattr(properties(device), "total_memory", None) if callable(properties) else None
    return found if isinstance(found, int) else None


_NO_MEMORY = re.compile(
    r"can't allocate memory|bad_alloc|could not create a primitive(?! descriptor)"
    r"|CUDA (?:driver )?error: out of memory"
    r"|(?:CUBLAS_STATUS|CUSPARSE_STATUS|CUSOLVER_STATUS|CUDNN_STATUS|CUFFT)_(?:INTERNAL_ERROR_\w*)?ALLOC(?:ATION)?_FAILED"
    r"|Unable to find a valid cuDNN algorithm|(?:FIND|GET) was unable to find an engine"
)
"""Torch's own allocator, the C++ library's, oneDNN where it has no room for a convolution's code or scratch; CUDA, and
its libraries, which allocate outside of torch's cache: cuDNN finds no algorithm where none has room."""


def out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python ran out of memory, on an accelerator or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


def lost(error: BaseException | None) -> bool:
    """Whether it is, or comes of, a failure of the accelerator itself, after which nothing more can be had of it.

    Such a failure is told at whatever call waits next, so that whoever meets it did not cause it, and must neither
    take another way nor say why the model failed.
    """
    while error is not None:
        if isinstance(error, torch.AcceleratorError) and not out_of_memory(error):
            return True
        error = error.__cause__
    return False


def in_backward(error: BaseException) -> bool:
    """Whether it was raised while torch took a gradient: by autograd, a backward of the model's own, or its hooks."""
    return any(frame.f_code.co_name == "_engine_run_backward" for frame in _frames(error))


def first_line(error: BaseException) -> str:
    """What an error says, in one line; with its type where that is not torch's usual one."""
    kind = type(error).__name__
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # its text is made by code of its own
        lines = []
    if not lines:
        return kind
    return lines[0] if isinstance(error, RuntimeError) else f"{kind}: {lines[0]}"


class running:
    """Around one forward of the user's model: whatever it raises becomes a `ModelError` that names the inputs.

    Raises:
        ModelError: The model fails on these inputs, or a hook on it does. Lack of memory is passed on as it is, and
            so is a failure of the accelerator, which may be that of an earlier call.
    """

    def __init__(self, inputs: Tensor | Inputs) -> None:
        self._inputs = inputs

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, AttributionError):
            return
        if out_of_memory(error) or lost(error):
            return
        told = first_line(error)
        if isinstance(error, TypeError) and "forward() missing" in told:
            told += "; give all that the model takes: a tuple, or a dict of keywords"
        raise ModelError(
            f"{_hook(error) or 'the model'} failed on inputs of shape {_shape(self._inputs)}, "
            f"{self._inputs.dtype}: {told}"
        ) from error


def _shape(inputs: Tensor | Inputs) -> str:
    return str(tuple(inputs.shape)) if isinstance(inputs, Tensor) else str(inputs)


def _frames(error: BaseException) -> Iterator[FrameType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _hook(error: BaseException) -> str | None:
    """The hook of a module in which an error was raised, as a person would name it."""
    frames = list(_frames(error))
    for outer, inner in pairwise(frames):
        hook = outer.f_locals.get("hook") if outer.f_globals.get("__name__") == "torch.nn.modules.module" else None
        function = getattr(hook, "__func__", hook)
        if function is not None and getattr(function, "__code__", None) is inner.f_code:
            return f"the hook {function.__module__}.{function.__qualname__} on the model"
    return None
