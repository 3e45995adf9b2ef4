"""``ShardReader``: the items of a shard, read while the shard before is computed."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch.utils.data import Dataset, get_worker_info

from attribution.runs import aside
from attribution.runs.computing import Read, read
from attribution.runs.folder import RunFolder
from attribution.runs.items import Items

Shard = tuple[int, list[Read]]


class ShardReader(Dataset[Shard]):
    """Reads the items of shards, one shard ahead where the items allow it (`ImageFiles.ahead`).

    Args:
        folder: The run.
        items: Its items.
        numbers: Of the shards to read, in the order in which they are asked for.
    """

    def __init__(self, folder: RunFolder, items: Items, numbers: Sequence[int]) -> None:
        self._folder, self._items, self._numbers = folder, items, numbers
        self._thread: ThreadPoolExecutor | None = None
        self._next: tuple[int, Future[list[Read]]] | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Shard:
        number = self._numbers[index]
        if get_worker_info() is None and getattr(self._items, "ahead", False):
            return number, self._ahead(index)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a worker, so that a transform gives the same bits there
        try:
            return number, self._read(number)
        finally:
            torch.set_num_threads(threads)

    def close(self) -> None:
        """Read no more."""
        self._closed, self._next = True, None
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None

    def _ahead(self, index: int) -> list[Read]:
        if self._thread is None:
            self._thread = aside.thread("attribution-reader")
        place, found = self._next or (-1, None)
        if found is None or place != index:
            found = self._thread.submit(self._read, self._numbers[index])
        following = index + 1
        self._next = None
        if following < len(self):
            self._next = following, self._thread.submit(self._read, self._numbers[following])
        return found.result()

    @torch.no_grad()
    def _read(self, number: int) -> list[Read]:
        found: list[Read] = []
        for item in self._folder.items(number):
            if self._closed:
                break
            found.append(read(self._items, item))
        return found
