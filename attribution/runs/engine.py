"""Lightning's ``Trainer.predict`` as the engine of a run, on one processor or many machines alike."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import lightning.pytorch as lightning
import torch
from torch.utils.data import DataLoader

from attribution.errors import InputError, ResourceError
from attribution.isolation.context import prepared
from attribution.paths import named
from attribution.runs import losses
from attribution.runs.committing import Committer
from attribution.runs.computing import Read, compute, record
from attribution.runs.folder import RunFolder
from attribution.runs.items import Items
from attribution.runs.plan import Plan, leads
from attribution.runs.progress import Progress
from attribution.runs.reading import Shard, ShardReader
from attribution.runs.settling import placed, tried
from attribution.runs.shard import Record
from attribution.runs.stopping import Stopping
from attribution.runs.work import OnShard, Work

_ENVIRONMENT = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
_CHATTY = ("lightning.pytorch", "lightning.fabric.utilities")
_ACCELERATORS = {"cpu": "cpu", "cuda": "gpu", "mps": "mps"}


def accelerator(device: torch.device) -> str:
    """What Lightning calls a device.

    Raises:
        InputError: It knows none of the kind.
    """
    if device.type not in _ACCELERATORS:
        raise InputError(f"a run cannot be spread over {device.type}; give cpu, cuda or mps")
    return _ACCELERATORS[device.type]


class _Numbers:
    """The order of the shards of this process, which ends where the run is asked to stop."""

    def __init__(self, count: int, stopping: Stopping) -> None:
        self._count, self._stopping = count, stopping

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        for index in range(self._count):
            if self._stopping.asked:
                return
            yield index


class _Module(lightning.LightningModule):
    """Computes shards; the user's model is not registered, so that Lightning leaves it alone."""

    def __init__(self, process: "Process") -> None:
        super().__init__()
        self._process = process

    def predict_step(self, batch: Shard, batch_idx: int) -> int:
        self._process.step(*batch)
        self._process.watch(self.trainer)
        return batch[0]

    def transfer_batch_to_device(self, batch: Shard, device: torch.device, dataloader_idx: int) -> Shard:
        return batch  # the work moves its inputs itself, and halves of them where memory is short

    def on_predict_start(self) -> None:
        self._process.begin(self.device)

    def on_predict_end(self) -> None:
        self._process.finish()
        self._process.end()

    def teardown(self, stage: str) -> None:
        self.trainer.strategy.barrier()  # whoever reads the folder after this finds the shards of all processes


class _Shards(lightning.LightningDataModule):
    """Hands each process its part of the shards that are left; the process that leads says which."""

    allow_zero_length_dataloader_with_multiple_devices = True

    def __init__(self, process: "Process", pending: Sequence[int], workers: int) -> None:
        super().__init__()
        self._process, self._pending, self._workers = process, pending, workers

    def predict_dataloader(self) -> DataLoader[Shard]:
        trainer: Any = self.trainer
        pending = trainer.strategy.broadcast(list(self._pending), src=0)
        mine = pending[trainer.global_rank :: trainer.world_size]
        process = self._process
        reader = process.reader(mine, trainer.world_size)
        order: Any = _Numbers(len(mine), process.stopping)
        return DataLoader(
            reader,
            batch_size=None,
            sampler=order,
            num_workers=self._workers,
            # a reader may hold a transform that cannot be pickled, which other ways to start a worker need
            multiprocessing_context="fork" if self._workers and sys.platform == "linux" else None,
            generator=torch.Generator(),  # else a number of the caller's is drawn
        )


class Process:
    """The part of a run that one process computes.

    Args:
        root: The folder of the run, settled by the process that leads.
        work: What to compute.
        items: Of what.
        stopping: Whether to end.
        on_shard: See `OnShard`.
        steady: Whether the model may stay prepared, of what was tried already; ``None``: try it.
        silent: Show no progress.
    """

    def __init__(
        self,
        root: Any,
        work: Work,
        items: Items,
        stopping: Stopping,
        on_shard: OnShard | None,
        *,
        steady: bool | None,
        silent: bool,
    ) -> None:
        self._root, self._work, self._items, self.stopping = root, work, items, stopping
        self._on_shard, self._steady, self._silent = on_shard, steady, silent
        self._undo = ExitStack()
        self._most: int | None = None
        self.progress: Progress | None = None

    def reader(self, numbers: Sequence[int], processes: int) -> ShardReader:
        """Of the shards of this process; the run is settled by now."""
        self._folder = RunFolder.read(self._root)
        self._committer = Committer(self._folder)
        self._numbers = numbers
        total = sum(len(self._folder.items(number)) for number in numbers)
        title = "run" if processes == 1 else f"run, process 1 of {processes}"
        self.progress = Progress(total, title, silent=self._silent or not leads())
        reader = ShardReader(self._folder, self._items, numbers)
        self._undo.callback(reader.close)
        self._undo.callback(self._committer.close)
        return reader

    def begin(self, device: torch.device) -> None:
        """Before the first shard: the model on its device, and threads as they were settled."""
        self.stopping.listen()  # again: Lightning took SIGTERM meanwhile
        self._device, model = device, self._work.model
        threads = torch.get_num_threads()
        self._undo.callback(torch.set_num_threads, threads)
        torch.set_num_threads(self._folder.threads)
        self._undo.enter_context(placed(model, device))
        if self._steady is None:
            waiting = [item for number in self._numbers for item in self._folder.items(number)]
            self._steady = tried(self._work, self._items, device, waiting)
        if self._steady:
            self._undo.enter_context(prepared(model))

    def step(self, number: int, items: list[Read]) -> None:
        """Compute one shard and begin to commit it, unless the run is asked to stop."""
        if self.stopping.asked:
            self.stopping.spread()
            return
        numbers = self._folder.items(number)
        found = compute(self._work, items, self._device, self._most, first=numbers[0])
        self._most = found.halved
        told = record(found, numbers, self._folder.names, items)
        if self._on_shard is not None:
            self._on_shard(self._folder, told, items, found)
        self._tell(self._committer.put(number, {**told, "together": found.halved}, found.tensors))

    def _tell(self, committed: Record | None) -> None:
        if committed is None or self.progress is None:
            return
        entries = committed["items"]
        self.progress.add(len(entries), sum(entry["error"] is not None for entry in entries))
        for entry in entries:
            for note in entry["notes"]:
                self.progress.say(f"note: {named(entry['name'])}: {note}")

    def watch(self, trainer: Any) -> None:
        """Look after the processes that this one started.

        Raises:
            ResourceError: One of them was ended.
        """
        for rank, child in enumerate(getattr(trainer.strategy.launcher, "procs", ()), start=1):
            if code := child.poll():
                raise ResourceError(
                    f"process {rank} of the run ended with code {code}; what is done stays: give the same command "
                    "again, with any number of processes"
                )

    def finish(self) -> None:
        """After the last shard: it is on the disk.

        Raises:
            OutputError: The disk refused.
        """
        self._tell(self._committer.settle())
        self.stopping.spread()  # a signal that came in the last shard is heard of here

    def end(self) -> None:
        """However it ended: nothing is written any more, and the model and torch are as they were."""
        try:
            self._undo.close()
        finally:
            if self.progress is not None:
                self.progress.close()


def predict(process: Process, pending: Sequence[int], plan: Plan, device: torch.device) -> None:
    """Compute what is pending, in as many processes as planned; each of them comes here.

    Raises:
        AttributionError: The work refuses, a file cannot be written, or a process was ended.
    """
    with _quiet(), process.stopping.listening(), _environment():
        trainer = lightning.Trainer(
            accelerator=accelerator(device),
            devices=plan.devices if plan.processes > 1 or device.index is None else [device.index],
            num_nodes=plan.num_nodes,
            strategy="ddp" if plan.strategy == "auto" and plan.processes > 1 else plan.strategy,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            inference_mode=False,
            use_distributed_sampler=False,
        )
        shards = _Shards(process, pending, plan.workers)
        try:
            trainer.predict(_Module(process), datamodule=shards, return_predictions=False)
        except SystemExit as error:
            if isinstance(error.__context__, KeyboardInterrupt):  # so Lightning ends what a user interrupts
                raise KeyboardInterrupt from None
            raise
        except (RuntimeError, OSError, EOFError) as error:
            if isinstance(error, RuntimeError):
                process.watch(trainer)  # a process that is gone breaks what the others do together
            if lost := losses.of_process(error, plan.workers):
                raise lost from error
            raise
        finally:
            process.end()


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning tells of devices and asks for more workers; a run tells of itself."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def _environment() -> Iterator[None]:
    """The variables by which Lightning finds its processes are those of before."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
