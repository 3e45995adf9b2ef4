"""``run``: techniques over a data set, resumable, on any number of processes."""

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attribution.class_names import ClassNames
from attribution.errors import InputError, ModelError
from attribution.isolation.context import admit
from attribution.running.execution import Execution
from attribution.runs import settling, tables
from attribution.runs.explaining import Explaining, check_target
from attribution.runs.folder import RunFolder
from attribution.runs.items import Examples, Items
from attribution.runs.lock import locked
from attribution.runs.named import techniques_by_name
from attribution.runs.opened import OpenRun
from attribution.runs.plan import Plan, leads
from attribution.runs.stopping import Stopping
from attribution.runs.work import OnShard, Work
from attribution.scores.reading import Asked
from attribution.technique import Technique


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        root: Its folder.
        items: All of them.
        failed: Those without results.
        left: Shards that are still to be computed.
        signal: Which signal asked it to stop; ``None``: none did.
        leads: Whether this process is the one that tells of the run.
    """

    root: Path
    items: int
    failed: int
    left: int
    signal: int | None
    leads: bool


def run(
    model: nn.Module,
    dataset: Any,
    techniques: Technique | Sequence[Technique] | Mapping[str, Technique],
    *,
    out: str | Path,
    backend: str = "hooks",
    target: Asked = None,
    execution: Execution = Execution(),
    labels: ClassNames | None = None,
    batch_size: int | str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    strategy: str = "auto",
    workers: int = 0,
    threads: int | None = None,
    progress: bool = True,
) -> OpenRun:
    """Compute techniques for every item of a data set, and keep each result with what it depends on.

    The same call again goes on where the last one ended, however it ended. Results are the same bytes on a CPU for any
    number of processes and workers and for any point where a run was broken off.

    Args:
        model: An eager module.
        dataset: With a length and examples by index, as `torch.utils.data.Dataset`: tensors without the axis of the
            batch, or tuples that begin with one.
        techniques: One or several; those of a mapping are called by its keys.
        out: The folder of the run, made where it is missing.
        backend: Who computes.
        target: As `explain` takes it, the same for all items.
        execution: How to run.
        labels: Class names, for the tables.
        batch_size: Items that go through the model together, and lie in one file; ``"auto"``: 8 on a CPU, 32 elsewhere.
        devices: Processes on this machine. More than one starts this script once more for each, as Lightning does.
        num_nodes: Machines.
        strategy: Lightning's.
        workers: Processes that read items, for each that computes.
        threads: Of torch on the host; ``None``: as many as torch has when the run is begun.
        progress: Tell on standard error how far it is.

    Returns:
        The results, which `attribution.runs.open` gives as well.

    Raises:
        InputError: The settings cannot be used, or the folder holds another run; before any work.
        OutputError: The folder cannot be written, or another process runs there.
        KeyboardInterrupt: A signal ended the run, after the shard that was under way.
    """
    named = techniques_by_name(techniques)
    work = Explaining(model, named, backend, target, execution, labels)
    for technique in named.values():
        if technique.needs_target:
            check_target(target, technique)
    items: Items = dataset if isinstance(dataset, Items) else Examples(dataset)
    plan = Plan(
        batch_size=batch_size,
        threads=threads,
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy,
        workers=workers,
        progress=progress,
    )
    outcome = carry_out(work, items, Path(out), plan, labels=labels)
    if outcome.signal is not None:
        raise KeyboardInterrupt(signal.Signals(outcome.signal).name)
    return OpenRun(RunFolder.read(outcome.root))


def carry_out(
    work: Work,
    items: Items,
    out: Path,
    plan: Plan = Plan(),
    *,
    device: torch.device | None = None,
    labels: ClassNames | None = None,
    on_shard: OnShard | None = None,
    after: Callable[[RunFolder], None] | None = None,
) -> Outcome:
    """Begin or go on with a run of any `Work`.

    Args:
        work: What to compute.
        items: Of what.
        out: The folder.
        plan: How to spread it.
        device: Where to compute; ``None``: where the model is.
        labels: Class names.
        on_shard: See `OnShard`.
        after: Called at the end by the process that leads, while it holds the folder, unless a signal came.

    Raises:
        InputError: Lightning is not installed, or see `run`.
        OutputError: See `run`.
    """
    try:
        from attribution.runs import engine
    except ImportError as error:
        raise InputError(f"runs need Lightning ({error}); pip install 'torch-attribution[lightning]'") from error
    if not isinstance(work.model, nn.Module):
        raise ModelError(f"model is a {type(work.model).__name__}; give a torch.nn.Module")
    admit(work.model)
    device = device or next((each.device for each in work.model.parameters()), torch.device("cpu"))
    if not len(items.names):
        raise InputError("there are no items to go over")
    tables.require()
    leader = leads()

    def tell(text: str) -> None:
        if plan.progress and leader:
            print(text, file=sys.stderr, flush=True)

    with ExitStack() as stack:
        pending: list[int] = []
        root, steady = out, None
        if leader:
            root = settling.make(out)
            stack.enter_context(locked(root))
            if not RunFolder.settled(root):  # a refusal comes before anything is written
                with settling.placed(work.model, device):
                    steady = settling.tried(work, items, device, range(len(items.names)))
            folder = settling.settle(root, work, items, plan, labels=labels, device=device)
            folder.made()
            pending = settling.left(folder, items, tell)
            if len(pending) < len(folder.shards):
                tell(f"{len(folder.shards) - len(pending)} of {len(folder.shards)} shards are done")
        stopping = Stopping(root, tell)
        if leader:
            stopping.begin()
        if pending or not leader:
            process = engine.Process(root, work, items, stopping, on_shard, steady=steady, silent=not plan.progress)
            engine.predict(process, pending, plan, device)
        if not leader:
            return Outcome(root, len(items.names), 0, 0, stopping.signal, leads=False)
        failed = tables.write(folder)
        left = len(folder.shards) - len(list(folder.present()))
        stopped = stopping.signal if left else None
        stopping.begin()
        if after is not None and stopping.signal is None:
            after(folder)
        return Outcome(root, len(items.names), failed, left, stopped, leads=True)
