"""``RunFolder``: where a run lies, what it was settled to be, and which of its shards are done."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from attribution.errors import InputError, OutputError
from attribution.paths import fault, named
from attribution.runs import files, shard
from attribution.runs.fingerprint import of_bytes
from attribution.runs.shard import Record

_RUN, _ITEMS, _SHARDS = "run.json", "items.json", "shards"
_PER_FOLDER = 1000


@dataclass(frozen=True)
class RunFolder:
    """A run that was settled: its folder, settings, items and class names.

    Attributes:
        root: The folder.
        settings: All that its results depend on, JSON.
        names: One per item; item k is in shard ``k // settings["batch_size"]``.
        labels: Class names, or ``None``.
        source: Where the items came from, in words; results do not depend on it.
        place: The folder or list of their files, where there is one; results do not depend on it either.
    """

    root: Path
    settings: Mapping[str, Any]
    names: tuple[str, ...]
    labels: tuple[str, ...] | None
    source: str
    place: Path | None = None

    @staticmethod
    def settled(root: Path) -> bool:
        """Whether a run lies there already."""
        return files.regular(root / _RUN)

    @classmethod
    def create(
        cls,
        root: Path,
        settings: Mapping[str, Any],
        names: Sequence[str],
        labels: Sequence[str] | None,
        source: str,
        place: Path | None = None,
    ) -> Self:
        """Settle a new run; its folder is `made`.

        Raises:
            OutputError: The disk refuses.
        """
        listed = None if labels is None else list(labels)
        files.write(root / _ITEMS, _json(list(names)))
        # The last to appear: what was not settled whole is settled anew.
        about = {"source": source, "place": None if place is None else _from(root, place)}
        files.write(root / _RUN, _json({"settings": dict(settings), "labels": listed, **about}))
        return cls.read(root)

    @classmethod
    def read(cls, root: str | Path) -> Self:
        """The run that lies in a folder.

        Raises:
            InputError: There is none.
            OutputError: Its files cannot be read.
        """
        root = Path(root)
        if found := fault(root / _RUN):
            raise InputError(f"{named(root)} holds no run: {_RUN} {found}; give the folder that --out named")
        try:
            run = json.loads((root / _RUN).read_bytes())
            names = tuple(map(str, json.loads((root / _ITEMS).read_bytes())))
            settings = dict(run["settings"])
            labels = None if run["labels"] is None else tuple(map(str, run["labels"]))
            settings["batch_size"] = int(settings["batch_size"])
            for name in ("batch_size", "threads"):
                if int(settings.get(name, 1)) < 1:
                    raise ValueError(f"{name} is {settings[name]}")
            whole = settings["items"] == items_text(names)
            place = run.get("place")  # older runs tell none
            place = None if place is None else root / str(place)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise OutputError(f"the run in {named(root)} cannot be read: {error}") from error
        if not whole:
            raise OutputError(f"{named(root / _ITEMS)} was changed: its names are not those of the run")
        return cls(root, settings, names, labels, str(run["source"]), place)

    @property
    def batch_size(self) -> int:
        """Items of a shard; the last one may have fewer."""
        return int(self.settings["batch_size"])

    @property
    def threads(self) -> int:
        """Of torch on the host; 1 where nothing was settled."""
        return int(self.settings.get("threads", 1))

    @property
    def on_host(self) -> bool:
        """Whether the model runs on the CPU."""
        return str(self.settings.get("device", "cpu")).partition(",")[0] == "cpu"

    @property
    def shards(self) -> range:
        """Their numbers."""
        return range(-(-len(self.names) // self.batch_size))

    @property
    def fingerprint(self) -> str:
        """Equal for runs whose results may lie side by side."""
        return of_bytes([_json(dict(self.settings))])

    def items(self, number: int) -> range:
        """The items of a shard."""
        first = number * self.batch_size
        return range(first, min(first + self.batch_size, len(self.names)))

    def path(self, number: int) -> Path:
        """Where a shard lies once it is done."""
        return self.root / _SHARDS / f"{number // _PER_FOLDER:05d}" / f"{number:08d}.safetensors"

    def made(self) -> None:
        """Make the folders of all shards, and sweep out what was left half written.

        Raises:
            OutputError: The disk refuses, or a link has the name of a folder.
        """
        files.sweep(self.root)
        files.folder(self.root / _SHARDS)
        for number in self.shards[::_PER_FOLDER]:
            files.sweep(files.folder(self.path(number).parent))

    def write(self, number: int, record: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
        """Commit a shard, which is done from then on.

        Raises:
            OutputError: The disk refuses.
        """
        shard.write(self.path(number), {**record, **self._stamp(number)}, tensors)

    def read_shard(self, number: int) -> tuple[Record, dict[str, Any]]:
        """A shard that is done.

        Raises:
            OutputError: It is not done, is damaged, or is another run's.
        """
        record, tensors = shard.read(self.path(number))
        stamp = self._stamp(number)
        strange = [name for name in stamp if record.get(name) != stamp[name]]
        told = record.get("items")
        if not isinstance(told, list) or [each.get("name") for each in told] != [
            self.names[item] for item in self.items(number)
        ]:
            strange.append("items")
        if strange:
            raise OutputError(f"{named(self.path(number))} is of another run: other {', '.join(strange)}")
        return record, tensors

    def present(self) -> Iterator[int]:
        """The numbers of the shards that have a file; whether it is whole, reading tells.

        Raises:
            OutputError: A folder cannot be listed.
        """
        for first in self.shards[::_PER_FOLDER]:
            try:
                found = {entry.name for entry in os.scandir(self.path(first).parent)}
            except FileNotFoundError:
                continue
            except OSError as error:  # else a run that is done would be told as one that has not begun
                raise OutputError(f"cannot list {named(self.path(first).parent)}: {error.strerror or error}") from error
            numbers = range(first, min(first + _PER_FOLDER, len(self.shards)))
            yield from (number for number in numbers if self.path(number).name in found)

    def records(self) -> Iterator[Record]:
        """The records of the shards that are done, in order; tensors are not read.

        Raises:
            OutputError: One cannot be read.
        """
        for number in self.present():
            yield shard.record(self.path(number))

    def _stamp(self, number: int) -> dict[str, Any]:
        return {"shard": number, "run": self.fingerprint, "settings": dict(self.settings)}


def items_text(names: Sequence[str]) -> str:
    """How many items there are, and which, as one text of the settings."""
    return f"{len(names)} items, {of_bytes([_json(list(names))])}"


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """What differs between the settings of a run and those asked for now, a line each."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))]
    return [] if old == new else [f"{path} was {_cut(old)} and is {_cut(new)}"]


def _from(root: Path, place: Path) -> str:
    """Of the folder of the run where there is a way, so that both may be moved together."""
    try:
        return os.path.relpath(os.path.realpath(place), os.path.realpath(root))
    except ValueError:  # another drive
        return os.path.abspath(place)


def _cut(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=True).encode()
