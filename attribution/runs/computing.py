"""From the items of a shard to its tensors and its record: bad items set aside, batches halved where memory ends."""

import errno
import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attribution.errors import InputError, OutputError, ResourceError
from attribution.running.execution import first_line, lost, out_of_memory
from attribution.runs.items import Item, Items
from attribution.runs.work import Batch, Part, Work

_OF_THE_SYSTEM = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT}
_OF_THE_SYSTEM |= {getattr(errno, name) for name in ("ESTALE", "EREMOTEIO") if hasattr(errno, name)}
"""Bad bytes may answer with others, such as EINVAL where they tell Pillow to seek before the file."""


@dataclass(frozen=True)
class Unread:
    """An item that could not be read.

    Attributes:
        reason: Why.
        sha256: Of its bytes, where there are some and they are to blame.
    """

    reason: str
    sha256: str | None = None


Read = Item | Unread


def read(items: Items, number: int) -> Read:
    """An item, or why it cannot be had: whatever a reader raises is that."""
    try:
        return items[number]
    except Exception as error:
        reason = str(error) if isinstance(error, InputError) else _told(error)
        if _of_the_system(error):  # of an item without a digest, a run that goes on finds that it is another now
            return Unread(reason)
    try:
        return Unread(reason, items.digest(number))
    except Exception:  # there is nothing to read at all
        return Unread(reason)


def _of_the_system(error: BaseException | None) -> bool:
    """Whether memory, a disk or a limit of the process failed, and not the item."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM):
            return True
        error = error.__cause__
    return False


@dataclass
class Computed:
    """A shard, ready to be written.

    Attributes:
        tensors: Of all parts.
        record: ``parts``, and per item what became of it.
        rows: Of the table, per item.
        halved: The largest batch that went through where memory ended; ``None``: it did not end.
        first: The number of the first item in the run.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    parts: list[Mapping[str, Any]] = field(default_factory=list)
    places: dict[int, tuple[int, int]] = field(default_factory=dict)
    rows: dict[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    halved: int | None = None
    first: int = 0

    def take(self, part: Part, slots: Sequence[int]) -> None:
        """Add what was computed of some items, which are counted from 0 in the shard."""
        number = len(self.parts)
        self.parts.append(part.header)
        self.tensors |= {f"{number}/{name}": tensor for name, tensor in part.tensors.items()}
        for row, slot in enumerate(slots):
            self.places[slot] = number, row
            self.rows[slot] = part.rows[row]


def compute(
    work: Work, items: Sequence[Read], device: torch.device, most: int | None = None, *, first: int = 0
) -> Computed:
    """Compute a shard.

    Items of one shape go through the model together. A place whose item could not be read, or that the work refuses, is
    filled with another item, of which nothing is kept: so the other items are computed in a batch of the same size and
    at the same places as if no item were bad, and come out to the same bits.

    Args:
        work: What to compute.
        items: In order.
        device: Of the model.
        most: Items that may go together, of what memory was found to have room for.
        first: The number of the first item in the run.

    Raises:
        OutputError: Of the work.
        AcceleratorError: The device is lost.
    """
    done = Computed(first=first, halved=most)
    done.errors = {slot: item.reason for slot, item in enumerate(items) if isinstance(item, Unread)}
    groups = list(_groups(items))
    for group in groups:
        slots = list(range(len(items))) if len(groups) == 1 else group
        kept = set(group)
        filled = [slot if slot in kept else group[0] for slot in slots]
        _compute(work, items, filled, [slot in kept for slot in slots], device, done)
    return done


def _groups(items: Sequence[Read]) -> Iterator[list[int]]:
    """The places of the items of each shape and dtype."""
    found: dict[Any, list[int]] = {}
    for slot, item in enumerate(items):
        if isinstance(item, Item):
            kind = (tuple(item.inputs.shape), item.inputs.dtype, item.target is None)
            found.setdefault(kind, []).append(slot)
    yield from found.values()


def _compute(
    work: Work, items: Sequence[Read], slots: list[int], wanted: list[bool], device: torch.device, done: Computed
) -> None:
    """Compute the items of ``slots``, of which those that are ``wanted`` are kept; what fails becomes an error."""
    if not any(wanted):
        return
    first = 0
    while first < len(slots):
        size = len(slots) if done.halved is None else done.halved  # which a part before may have lowered
        _compute_part(work, items, slots[first : first + size], wanted[first : first + size], device, done)
        first += size


def _compute_part(
    work: Work, items: Sequence[Read], slots: list[int], wanted: list[bool], device: torch.device, done: Computed
) -> None:
    if not any(wanted):
        return
    keep = [row for row, flag in enumerate(wanted) if flag]
    found, error, room = _attempt(work, items, slots, keep, device, done.first)
    if found is not None:
        done.take(found, [slots[row] for row in keep])
        return
    if not room and len(slots) > 1:
        half = -(-len(slots) // 2)
        done.halved = half if done.halved is None else min(half, done.halved)
        _compute(work, items, slots, wanted, device, done)
        return
    if len(slots) == 1:
        done.errors[slots[0]] = error
        return
    bad = {}
    for row in keep:
        alone, told, _ = _attempt(work, items, [slots[row]], [0], device, done.first)
        if alone is None:
            bad[row] = told
    done.errors |= {slots[row]: told for row, told in bad.items()}
    good = [row for row in keep if row not in bad]
    if bad and good:
        filled = [slots[good[0]] if row in bad else slot for row, slot in enumerate(slots)]
        _compute_part(work, items, filled, [row in good for row in range(len(slots))], device, done)
    elif good:  # each goes alone, and they do not together
        for row in good:
            _compute_part(work, items, [slots[row]], [True], device, done)


def _attempt(
    work: Work, items: Sequence[Read], slots: Sequence[int], keep: Sequence[int], device: torch.device, first: int
) -> tuple[Part | None, str, bool]:
    """A part, or why there is none and whether there was room for it.

    The exception is left behind before anything else is tried: it holds the tensors of the frames that it came through.
    """
    try:
        return work(_batch(items, slots, first).on(device), keep), "", True
    except OutputError:
        raise
    except Exception as error:  # a model and a plugin may raise anything of an item
        if lost(error):
            raise
        told, room = _told(error), not (isinstance(error, ResourceError) or out_of_memory(error))
    if not room:
        gc.collect()
        if device.type not in ("cpu", "meta"):
            torch.get_device_module(device).empty_cache()
    return None, told, room


def _batch(items: Sequence[Read], slots: Sequence[int], first: int) -> Batch:
    chosen = [item for item in (items[slot] for slot in slots) if isinstance(item, Item)]
    targets = [item.target for item in chosen]
    named = tuple(target for target in targets if target is not None)
    inputs = torch.stack([item.inputs for item in chosen])
    return Batch(inputs, named if len(named) == len(chosen) else None, tuple(first + slot for slot in slots))


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error).removeprefix(f'{type(error).__name__}: ')}"


def record(done: Computed, numbers: Sequence[int], names: Sequence[str], items: Sequence[Read]) -> dict[str, Any]:
    """What a shard's file says beside its tensors.

    Args:
        done: The shard.
        numbers: Of its items in the run.
        names: Of all items.
        items: As they were read.
    """
    entries = []
    for slot, (number, item) in enumerate(zip(numbers, items, strict=True)):
        place = done.places.get(slot)
        entries.append(
            {
                "item": number,
                "name": names[number],
                "sha256": item.sha256,
                "notes": list(item.notes) if isinstance(item, Item) else [],
                "part": None if place is None else place[0],
                "row": None if place is None else place[1],
                "error": done.errors.get(slot),
                "rows": [dict(row) for row in done.rows.get(slot, ())],
            }
        )
    return {"parts": [dict(part) for part in done.parts], "items": entries}
