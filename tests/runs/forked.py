"""Runs in processes of their own, forked from a server that has imported Lightning already."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

Started = ForkServerProcess | subprocess.Popen[Any]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["lightning.pytorch", "attribution.runs.engine", "attribution.runs.run", "pyarrow.parquet", "attribution_hooks.cam"]
)


def _go(root: str, options: Mapping[str, Any], environment: Mapping[str, str], log: str, body: str) -> None:
    """A process: its body by name, in a group of its own, with its words in a file."""
    os.setsid()
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    torch.set_num_threads(1)
    module, _, function = body.partition(":")
    getattr(import_module(module), function)(Path(root), **options)
    sys.exit(0)


def started(
    root: Path,
    environment: Mapping[str, str] | None = None,
    *,
    body: str = "tests.runs.killed:noise_run",
    **options: Any,
) -> ForkServerProcess:
    """A run that has begun in another process: one of noise, or ``MODULE:FUNCTION``."""
    root.mkdir(parents=True, exist_ok=True)
    log = str(root.parent / f"{root.name}.log")
    process = _context.Process(target=_go, args=(str(root), options, dict(environment or {}), log, body), daemon=False)
    process.start()
    return process


def shards(root: Path) -> list[Path]:
    """Those under their final names."""
    return sorted(root.rglob("0*.safetensors"))


def wait_for(root: Path, process: Started, count: int = 1, seconds: float = 120) -> None:
    """Until so many shards are there, or the run has ended."""
    end = time.monotonic() + seconds
    while len(shards(root)) < count and _goes_on(process):
        assert time.monotonic() < end, f"{root.name}: {len(shards(root))} shards"
        time.sleep(0.002)


def _goes_on(process: Started) -> bool:
    return process.poll() is None if isinstance(process, subprocess.Popen) else process.is_alive()


def kill(process: Started, number: int = signal.SIGKILL) -> None:
    """Signal the whole group of a process that leads one, as those that `started` began."""
    assert process.pid is not None
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        process.kill()
