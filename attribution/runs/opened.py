"""``open``: the results of a run, item by item."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from attribution.errors import InputError, OutputError
from attribution.result import Attribution
from attribution.runs import tables
from attribution.runs.explaining import KIND, answers_of, chosen
from attribution.runs.folder import RunFolder
from attribution.runs.shard import Record


@dataclass(frozen=True)
class Entry:
    """An item of a run.

    Attributes:
        number: From 0.
        name: As the list or the folder calls it.
        sha256: Of the input's bytes; ``None`` where it could not be read.
        notes: What should be known of how it was read.
        error: Why it has no results; ``None`` where it has.
    """

    number: int
    name: str
    sha256: str | None
    notes: tuple[str, ...]
    error: str | None


@dataclass(frozen=True)
class OpenRun:
    """The results of a run, finished or not. Iterating gives ``(Entry, technique's name, Attribution)`` in order.

    A shard is read whole and held against its checksum when its first item is asked for.

    Attributes:
        folder: Where it lies, and what it was settled to be.
    """

    folder: RunFolder

    def __iter__(self) -> Iterator[tuple[Entry, str, Attribution]]:
        for number in self.folder.present():
            record, tensors = self.folder.read_shard(number)
            answers = answers_of(record, tensors, self.folder.path(number))
            for each in record["items"]:
                if each["part"] is not None:
                    for name, (found, count) in answers[each["part"]].items():
                        yield _entry(each), name, chosen(found, [each["row"]], count)

    def __len__(self) -> int:
        """Items, finished or not."""
        return len(self.folder.names)

    def __getitem__(self, item: int) -> dict[str, Attribution]:
        """The answers of one item by the names of their techniques.

        Raises:
            InputError: There is no such item, or it failed.
            OutputError: Its shard is not done yet, or damaged.
        """
        if not 0 <= item < len(self):
            raise InputError(f"no item {item}; the run has {len(self)}, counted from 0")
        number = item // self.folder.batch_size
        record, tensors = self.folder.read_shard(number)
        each = record["items"][item - self.folder.items(number)[0]]
        if each["part"] is None:
            raise InputError(f"item {item}, {each['name']!r}, failed: {each['error']}")
        found = answers_of(record, tensors, self.folder.path(number))[each["part"]]
        return {name: chosen(answer, [each["row"]], count) for name, (answer, count) in found.items()}

    @property
    def entries(self) -> Iterator[Entry]:
        """The items that are done, those that failed among them; no tensor is read."""
        return (_entry(each) for record in self.folder.records() for each in record["items"])

    @property
    def failures(self) -> list[Entry]:
        """The items without results, and why."""
        return [entry for entry in self.entries if entry.error is not None]

    @property
    def finished(self) -> bool:
        """Whether every shard is there."""
        return len(list(self.folder.present())) == len(self.folder.shards)

    def rebuild(self) -> None:
        """Make ``scores.parquet`` and ``failures.csv`` anew from the shards."""
        tables.write(self.folder)

    def __repr__(self) -> str:
        done = len(list(self.folder.present()))
        return f"<run in {self.folder.root}: {len(self)} items, {done} of {len(self.folder.shards)} shards done>"


def open(path: str | Path) -> OpenRun:
    """The results of a run.

    Args:
        path: The folder that ``out=`` or ``--out`` named.

    Raises:
        InputError: It holds no run of attributions.
        OutputError: It cannot be read.
    """
    folder = RunFolder.read(path)
    if folder.settings.get("kind") != KIND:
        raise InputError(f"the run in {path} holds {folder.settings.get('kind')!r}, no attributions")
    return OpenRun(folder)


def _entry(each: Record) -> Entry:
    try:
        return Entry(each["item"], each["name"], each["sha256"], tuple(each["notes"]), each["error"])
    except (KeyError, TypeError) as error:
        raise OutputError(f"a shard's record lacks {error}") from error
