"""What a run goes over: items by number, each read when its turn comes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from attribution.errors import InputError
from attribution.images import MAX_PIXELS
from attribution.runs import fingerprint


@dataclass(frozen=True)
class Item:
    """One item, read.

    Attributes:
        inputs: What the model takes, without the axis of the batch: (C, H, W), (F,), (C, T), …
        sha256: Of the bytes of the file, or of the tensor where there is none.
        target: The class to explain, where the list names one.
        notes: What a user should know of how it was read.
    """

    inputs: Tensor
    sha256: str
    target: int | None = None
    notes: tuple[str, ...] = ()


@runtime_checkable
class Items(Protocol):
    """A sequence of items with names.

    Where it has a true attribute ``ahead``, items are read in threads of the run, several at once or before their turn.
    Where it has an attribute ``targets`` that is not ``None``, another sequence of targets is another run. Where it has
    an attribute ``place``, the record of the run tells that its files lie there.
    """

    @property
    def names(self) -> Sequence[str]:
        """One each."""

    @property
    def source(self) -> str:
        """Where they come from, in words."""

    @property
    def transform(self) -> str:
        """What was done to them before the model, as a text that is equal where nothing changed."""

    def __getitem__(self, index: int) -> Item:
        """Read one.

        Raises:
            InputError: It cannot be read.
        """

    def digest(self, index: int) -> str:
        """The ``sha256`` of one, with as little work as that takes.

        Raises:
            InputError: It cannot be read.
        """


class Examples:
    """Any data set that has a length and gives examples by index, as `Items`.

    An example is a tensor without the axis of the batch, or a tuple or list that begins with one, as of
    ``torchvision.datasets``; what comes after it is left out.

    Args:
        dataset: The data set.
        names: One per example; ``None``: what the data set calls ``names``, else the numbers.

    Raises:
        InputError: It has no length, no examples, or another number of names.
    """

    transform = "the data set's own"

    def __init__(self, dataset: Any, names: Sequence[str] | None = None) -> None:
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise InputError(
                f"dataset is a {type(dataset).__name__}; give one with __len__ and __getitem__: a run counts its items"
            )
        held = getattr(dataset, "names", None) if names is None else names
        self.names = [f"{index}" for index in range(len(dataset))] if held is None else [str(name) for name in held]
        if not self.names or len(self.names) != len(dataset):
            raise InputError(f"the data set has {len(dataset)} examples and {len(self.names)} names; give one for each")
        self.dataset = dataset
        self.source = f"{type(dataset).__name__} of {len(self.names)} examples"

    def __getitem__(self, index: int) -> Item:
        try:
            found = self.dataset[index]
        except Exception as error:  # a stranger's code
            raise InputError(f"example {index} cannot be read: {type(error).__name__}: {error}") from error
        if isinstance(found, list | tuple) and found:
            found = found[0]
        if not isinstance(found, Tensor):
            raise InputError(
                f"example {index} is a {type(found).__name__}; give a tensor without the axis of the batch, or a tuple "
                "that begins with one"
            )
        checked(found, f"example {index}")
        return Item(found, fingerprint.of_tensors({"": found}))

    def digest(self, index: int) -> str:
        """Of the tensor, which is read for it."""
        return self[index].sha256


def checked(inputs: Tensor, name: str) -> None:
    """Refuse what no model takes as one example.

    Raises:
        InputError: It is empty, not of floating point, not finite, or larger than an image may be.
    """
    if not inputs.is_floating_point() or not inputs.ndim or not inputs.numel():
        raise InputError(f"{name} is {tuple(inputs.shape)} of {inputs.dtype}; expected floats, at least one")
    if inputs.numel() > 4 * MAX_PIXELS:
        raise InputError(f"{name} has {inputs.numel():,} values after its transform; the limit is {4 * MAX_PIXELS:,}")
    # What is not finite stays so in a sum, which is a tenth of the work; a sum may overflow all the same.
    if not bool(inputs.sum().isfinite()) and not bool(inputs.isfinite().all()):
        raise InputError(f"{name} holds NaN or infinity")
