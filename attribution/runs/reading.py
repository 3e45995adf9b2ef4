"""``ShardReader``: the items of a shard, read on all processors at once, or while the shard before is computed."""

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
    """Reads the items of shards, in threads where the items allow it (`ImageFiles.ahead`).

    Where the host computes as well, a shard is read when its turn comes, by as many threads as torch has there. A
    thread that reads meanwhile takes a processor from torch, and the processors that compute wait for the last one.
    Elsewhere a shard is read while the device computes the one before.

    Args:
        folder: The run.
        items: Its items.
        numbers: Of the shards to read, in the order in which they are asked for.
    """

    def __init__(self, folder: RunFolder, items: Items, numbers: Sequence[int]) -> None:
        self._folder, self._items, self._numbers = folder, items, numbers
        self._on_host = folder.on_host
        self._count = min(folder.threads, folder.batch_size) if self._on_host else 1
        self._threads: ThreadPoolExecutor | None = None
        self._next: tuple[int, list[Future[Read]]] = -1, []

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Shard:
        number = self._numbers[index]
        if get_worker_info() is None and getattr(self._items, "ahead", False):
            return number, self._aside(index)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a worker, so that a transform gives the same bits there
        try:
            return number, [self._read(item) for item in self._folder.items(number)]
        finally:
            torch.set_num_threads(threads)

    def close(self) -> None:
        """Read no more."""
        self._next = -1, []
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            self._threads = None

    def _aside(self, index: int) -> list[Read]:
        place, found = self._next
        if place != index:
            found = self._begun(index)
        following = index + 1
        self._next = -1, []
        if not self._on_host and following < len(self):
            self._next = following, self._begun(following)
        return [each.result() for each in found]

    def _begun(self, index: int) -> list[Future[Read]]:
        if self._threads is None:
            self._threads = aside.threads("attribution-reader", self._count)
        return [self._threads.submit(self._read, item) for item in self._folder.items(self._numbers[index])]

    @torch.no_grad()
    def _read(self, item: int) -> Read:
        return read(self._items, item)
