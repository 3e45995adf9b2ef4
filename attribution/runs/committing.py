"""``Committer``: shards are written while the next one is computed."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from attribution.runs import aside
from attribution.runs.folder import RunFolder
from attribution.runs.shard import Record


class Committer:
    """Writes one shard at a time, in a thread; what was put before is on the disk when the next one is put.

    Args:
        folder: The run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._thread: ThreadPoolExecutor | None = None
        self._under_way: tuple[Future[None], Record] | None = None

    def put(self, number: int, record: Record, tensors: Mapping[str, Tensor]) -> Record | None:
        """Begin to write a shard; gives the record of the one before, which is committed.

        Raises:
            OutputError: The disk refused the one before.
        """
        before = self.settle()
        if self._thread is None:
            self._thread = aside.threads("attribution-writer")
        # A work may use its tensors again, and a device gets its memory back.
        held = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        self._under_way = self._thread.submit(self._folder.write, number, record, held), record
        return before

    def settle(self) -> Record | None:
        """Wait for the write that is under way, and give the record that it committed.

        Raises:
            OutputError: The disk refused.
        """
        if self._under_way is None:
            return None
        (future, record), self._under_way = self._under_way, None
        future.result()
        return record

    def close(self) -> None:
        """Wait for the write that is under way, whatever becomes of it."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
