"""``Work``: what a run computes of a batch. A run of maps is one; others may store scores, or anything in tensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """Items of one shape that go through the model together.

    Attributes:
        inputs: (n, …), on the model's device.
        targets: The class of each, where the list of items names them.
        items: The number of each in the run. A row that only fills a place has that of the item it repeats.
    """

    inputs: Tensor
    targets: tuple[int, ...] | None = None
    items: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs)

    def on(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return replace(self, inputs=self.inputs.to(device))


@dataclass(frozen=True)
class Part:
    """What was computed of a batch.

    Attributes:
        tensors: By name; the first axis is that of the rows that were kept, where they have one.
        header: What else reading them takes, JSON.
        rows: Per kept row its lines in the table, each with values for some of `Work.columns`.
    """

    tensors: Mapping[str, Tensor]
    header: Mapping[str, Any]
    rows: Sequence[Sequence[Mapping[str, Any]]]


class Work(Protocol):
    """What a run computes; the run brings items, shards, files, processes and resumption."""

    @property
    def kind(self) -> str:
        """What it makes, such as ``"attributions"``: runs of another kind are not resumed by it."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Of the table, each with its Arrow type: ``"string"``, ``"int64"``, ``"double"``."""

    @property
    def model(self) -> nn.Module:
        """The model that it asks; the engine puts it on the device of its process."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that its results depend on beside model, items, device and batch size; JSON."""

    def __call__(self, batch: Batch, keep: Sequence[int]) -> Part:
        """Compute a batch.

        Args:
            batch: Also rows that only fill the place of an item that could not be read: with them the others come out
                to the same bits as in a batch without bad items.
            keep: The rows that are wanted, in order.

        Raises:
            AttributionError: An item, or all of them, cannot be computed.
        """


@dataclass(frozen=True, kw_only=True)
class FunctionWork:
    """A `Work` of which a function computes each batch.

    Args:
        model: See `Work`.
        function: From a batch and the rows to keep to a `Part`, as `Work.__call__`.
        kind: See `Work`.
        columns: Likewise.
        settings: Likewise; nothing of the function itself is compared when a run goes on.
    """

    model: nn.Module
    function: Callable[[Batch, Sequence[int]], Part]
    kind: str
    columns: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, batch: Batch, keep: Sequence[int]) -> Part:
        """See `Work`."""
        return self.function(batch, keep)


OnShard = Callable[[Any, Mapping[str, Any], Sequence[Any], Any], None]
"""Called before a shard is committed: the `RunFolder`, the record, the items as they were read, and what was computed.
What it makes is there once the shard is done, and made again where the process is killed between the two."""
