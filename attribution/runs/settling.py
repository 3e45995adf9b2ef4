"""What a run is, settled when it begins; and what is left of it when it begins again."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attribution import class_names
from attribution.class_names import ClassNames
from attribution.errors import AttributionError, InputError, ModelError, OutputError
from attribution.isolation.context import prepared
from attribution.paths import named
from attribution.running.precision import told as products
from attribution.runs import fingerprint
from attribution.runs.computing import read
from attribution.runs.folder import RunFolder, differences, items_text
from attribution.runs.items import Item, Items
from attribution.runs.plan import Plan
from attribution.runs.work import Batch, Work

ON_HOST, ON_DEVICE = 8, 32
"""Items of a shard where ``batch_size`` is ``"auto"``, if memory allows."""

_TRIED = 16
"""Items that are read to find one to try the work on."""

_SHOWN = 4
_READERS = 4

Tell = Callable[[str], None]


def settle(
    root: Path,
    work: Work,
    items: Items,
    plan: Plan,
    *,
    labels: ClassNames | None = None,
    device: torch.device,
) -> RunFolder:
    """The run in a folder that is made, or taken as it is where it is the same run.

    Args:
        root: The folder.
        work: What to compute.
        items: Of what.
        plan: Its batch size and threads, where it names them.
        labels: Class names.
        device: Where the model will run.

    Raises:
        InputError: The run that is there is another one; the text says what differs.
        OutputError: The folder cannot be made or read.
    """
    old = RunFolder.read(root) if RunFolder.settled(root) else None
    kept = {} if old is None else old.settings
    size = kept.get("batch_size", _fitting(device)) if plan.batch_size == "auto" else plan.batch_size
    asked = {
        "kind": work.kind,
        "columns": [list(column) for column in work.columns.items()],
        "work": dict(work.settings),
        "model": fingerprint.of_model(work.model),
        "transform": items.transform,
        "labels": _labels_text(labels),
        "items": items_text(items.names),
        "targets": _targets_text(items),
        "versions": fingerprint.versions(),
        "device": _device_text(device),
        "threads": plan.threads or kept.get("threads") or max(1, torch.get_num_threads() // plan.devices),
        "batch_size": size,
    }
    if old is not None:
        if changed := differences(old.settings, asked):
            more = f", and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
            if old.settings["items"] != asked["items"]:
                more += f"; {_other_items(old.names, items.names)}"
            raise InputError(
                f"{named(root)} holds another run; results of two never mix: {'; '.join(changed[:_SHOWN])}{more}; give "
                "another folder, or the settings of that run"
            )
        return old
    place = getattr(items, "place", None)
    return RunFolder.create(root, asked, items.names, class_names.every(labels), items.source, place)


def left(folder: RunFolder, items: Items, tell: Tell) -> list[int]:
    """The numbers of the shards that are to be computed.

    A shard is done if its file is whole, is this run's, and its inputs are the bytes that they were. An item that
    failed has its shard computed again where its bytes are others now, or the system was to blame and it can be read.

    Args:
        folder: The run.
        items: Its items.
        tell: Takes a line for the user.

    Raises:
        InputError: An input with results is not what it was.
    """
    done: set[int] = set()
    damaged, changed, repaired = 0, list[str](), 0
    with ThreadPoolExecutor(_READERS) as readers:
        for number in folder.present():
            try:
                record, _ = folder.read_shard(number)
            except OutputError:
                damaged += 1
                continue
            entries = record["items"]
            now = list(readers.map(lambda each: _digest(items, each["item"]), entries))
            other = [each for each, digest in zip(entries, now, strict=True) if each["sha256"] != digest]
            changed += [str(each["name"]) for each in other if each["error"] is None]
            if other:
                repaired += 1
            else:
                done.add(number)
    if changed:
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise InputError(
            f"inputs are not what they were when they were computed: {', '.join(map(named, changed[:_SHOWN]))}{more}; "
            "put them back, or give another folder"
        )
    if damaged:
        tell(f"{damaged} shards are damaged or another run's, and are computed again")
    if repaired:
        tell(f"{repaired} shards have items that failed and are others now, and are computed again")
    return [number for number in folder.shards if number not in done]


def make(root: Path) -> Path:
    """The folder of a run, with its parents.

    Raises:
        OutputError: It cannot be made or written to.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        usable = os.access(root, os.W_OK | os.X_OK)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot make the folder {named(root)}: {reason}") from error
    if not usable:
        raise OutputError(f"cannot write into the folder {named(root)}; give another")
    return Path(os.path.realpath(root))


def tried(work: Work, items: Items, device: torch.device, numbers: Sequence[int]) -> bool:
    """Whether the model may stay `attribution.prepared`, found by asking the work of one item before all others.

    What refuses the settings refuses them here, before anything is written. An item that cannot be read is passed over.

    Raises:
        AttributionError: The work refuses the item, and so every item like it.
    """
    for number in numbers[:_TRIED]:
        item = read(items, number)
        if isinstance(item, Item):
            target = None if item.target is None else (item.target,)
            return _try(work, Batch(item.inputs[None], target, (number,)).on(device))
    return True


@contextmanager
def placed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """The model on a device, and back where it was."""
    home = next((each.device for each in model.parameters()), device)
    if home == device or (device.index is None and home.type == device.type):
        yield
        return
    try:
        model.to(device)
        yield
    finally:
        model.to(home)


def _try(work: Work, batch: Batch) -> bool:
    answered = False
    try:
        with prepared(work.model):
            work(batch, [0])
            answered = True
    except ModelError:
        if not answered:
            raise
        return False  # a forward that changes the model is compared anew in each call
    return True


def _fitting(device: torch.device) -> int:
    return ON_HOST if device.type == "cpu" else ON_DEVICE


def _other_items(before: Sequence[str], now: Sequence[str]) -> str:
    """Which items are gone and which are new, the first few by name."""
    here, there = set(now), set(before)
    told = [
        f"{len(names)} {word}: {', '.join(map(named, names[:_SHOWN]))}{', …' * (len(names) > _SHOWN)}"
        for word, names in (
            ("gone", [name for name in before if name not in here]),
            ("new", [name for name in now if name not in there]),
        )
        if names
    ]
    return "; ".join(told) or "the same items in another order"


def _digest(items: Items, number: int) -> str | None:
    try:
        return items.digest(number)
    except AttributionError:
        return None


def _labels_text(labels: ClassNames | None) -> str:
    names = class_names.every(labels)
    return "none" if names is None else fingerprint.of_bytes(f"{name}\n".encode() for name in names)


def _targets_text(items: Items) -> str:
    """Of the classes that a list names: with others, items that are left would be explained for another class."""
    targets = getattr(items, "targets", None)
    return "none" if targets is None else fingerprint.of_bytes(f"{target}\n".encode() for target in targets)


def _device_text(device: torch.device) -> str:
    """Its kind: another of the kind goes on with a run. With the precision in which it multiplies float32."""
    told: Any = products(device)
    return device.type if told is None else f"{device.type}, float32 products {told}"
