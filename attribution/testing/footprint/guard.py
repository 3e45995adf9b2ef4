"""``guard``: hold a block of code to leaving the model, its inputs, torch and the process as they were."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from torch import Tensor, nn

from attribution.errors import AttributionError
from attribution.testing.footprint.snapshot import Change, Snapshot


class FootprintError(AttributionError, AssertionError):
    """A block changed what it had to leave alone.

    Attributes:
        changes: Each violated place, with its state before and after.
    """

    def __init__(self, changes: Sequence[Change]) -> None:
        self.changes = tuple(changes)
        lines = [f"{len(self.changes)} changes where none was expected", *map(str, self.changes)]
        super().__init__("\n  ".join(lines))


@contextmanager
def guard(model: nn.Module, *inputs: Tensor | None) -> Iterator[Snapshot]:
    """Compare the thirteen fields before and after a block, whichever way it is left.

    1 hooks, per module, of tensors and global · 2 training flags · 3 identity, storage and version of parameters ·
    4 their values · 5 buffers · 6 ``requires_grad`` · 7 ``.grad`` · 8 ``inplace`` flags · 9 other attributes of
    modules · 10 the inputs: bytes, form, version, ``requires_grad``, ``.grad`` · 11 the random numbers of torch, CUDA,
    numpy and Python · 12 torch's modes: gradients, inference, autocast, default dtype and device, deterministic
    algorithms, cuDNN, float32 precision, threads · 13 the process: warnings filters, figures of pyplot, file
    descriptors, Python threads.

    Fields 11 to 13 belong to the process: other threads must not change them meanwhile. Where a buffer is written and
    given back, its values count, not its version.

    Args:
        model: Any module.
        inputs: Tensors that the block is given; ``None`` is left out.

    Raises:
        FootprintError: Something differs; lists each place before and after. Where the block itself raised, that
            exception is its context; a block that leaves no trace keeps its own exception.
    """
    import_module("torch.fx.experimental.symbolic_shapes")  # torch's first backward does, which adds a warnings filter
    before = Snapshot(model, *inputs)
    try:
        yield before
    finally:
        if changes := before.changes():
            raise FootprintError(changes)
