"""``kill -9`` of all processes of a run at any moment: nothing corrupt, nothing twice, the same bytes in the end."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from attribution import runs
from attribution.runs import shard
from tests.runs import forked
from tests.runs.data import contents, painted
from tests.runs.killed import COUNT, SHARD, noise_run

KILLS = [pytest.param(seed, marks=[] if seed < 6 else [pytest.mark.slow]) for seed in range(60)]
MANY = [pytest.param(seed, marks=[pytest.mark.slow]) for seed in range(60, 560)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """The shards of a run that nothing disturbed, in a process like those that are killed, and how long it wrote."""
    root = tmp_path_factory.mktemp("whole") / "run"
    process = forked.started(root)
    forked.wait_for(root, process)
    begun = time.monotonic()
    process.join(120)
    assert process.exitcode == 0, (root.parent / "run.log").read_text()
    return contents(root), time.monotonic() - begun


@pytest.mark.parametrize("seed", [*KILLS, *MANY])
def test_killed_at_any_moment(tmp_path: Path, whole: tuple[dict[str, bytes], float], seed: int) -> None:
    expected, duration = whole
    root = tmp_path / "run"
    workers = seed % 3 % 2  # a third of them with a process that reads
    process = forked.started(root, workers=workers)
    forked.wait_for(root, process)
    time.sleep(random.Random(seed).uniform(0, duration))
    forked.kill(process)
    process.join(60)
    left = forked.shards(root)
    assert left
    for path in left:  # whole under its final name, to the byte
        assert path.read_bytes() == expected[str(path.relative_to(root))]
        shard.read(path)
    assert {entry.number for entry in runs.open(root).entries} == {
        item for path in left for item in range(int(path.stem) * SHARD, int(path.stem) * SHARD + SHARD)
    }
    again = noise_run(root)
    assert contents(root) == expected
    assert [entry.number for entry, _, _ in again] == list(range(COUNT))
    assert not list(root.rglob(".writing-*"))


def test_some_kills_come_in_between(tmp_path: Path, whole: tuple[dict[str, bytes], float]) -> None:
    """Not all kills hit a run that has just begun, or has ended."""
    expected, duration = whole
    process = forked.started(tmp_path / "run")
    forked.wait_for(tmp_path / "run", process, count=len(expected) // 2)
    forked.kill(process)
    process.join(60)
    assert len(expected) // 2 <= len(forked.shards(tmp_path / "run")) < len(expected)
    assert not (tmp_path / "run" / "scores.parquet").exists()
    assert process.exitcode == -signal.SIGKILL
    assert duration > 0


def port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def both(root: Path, **options: Any) -> list[Any]:
    """Two processes of one run, started from outside as by ``torchrun``."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port(), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "1"}
    common |= {"GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    return [
        forked.started(root, {**common, "RANK": rank, "LOCAL_RANK": rank}, devices=2, **options) for rank in ("0", "1")
    ]


def test_two_processes_compute_each_item_once(tmp_path: Path, whole: tuple[dict[str, bytes], float]) -> None:
    root = tmp_path / "run"
    for process in both(root):
        process.join(200)
        assert process.exitcode == 0, (tmp_path / "run.log").read_text()
    assert contents(root) == whole[0]
    assert [entry.number for entry, _, _ in runs.open(root)] == list(range(COUNT))
    assert (root / "scores.parquet").exists()


def test_one_process_goes_on_where_one_of_two_was_killed(tmp_path: Path, whole: tuple[dict[str, bytes], float]) -> None:
    root = tmp_path / "run"
    first, second = both(root)
    forked.wait_for(root, first, count=4)
    forked.kill(second)
    second.join(60)
    first.join(120)
    assert first.exitcode == 1
    assert "ResourceError: another process of the run is gone" in (tmp_path / "run.log").read_text()
    left = forked.shards(root)
    assert 4 <= len(left) < len(whole[0])
    before = {path: path.stat().st_mtime_ns for path in left}
    noise_run(root)
    assert contents(root) == whole[0]
    assert all(path.stat().st_mtime_ns == time_ for path, time_ in before.items())  # what was done is not done again


MODEL = """
from attribution.testing import small_cnn
from attribution.zoo import LoadedModel
import numpy as np

def transform(photo):
    return torch.from_numpy(np.array(photo, dtype=np.float32) / 255).movedim(-1, 0).contiguous()

def make():
    zero, one = (0.0,) * 3, (1.0,) * 3
    return LoadedModel(name="", model=small_cnn(), transform=transform, mean=zero, std=one, labels=None)
"""


@pytest.mark.slow
def test_one_of_two_processes_is_killed(tmp_path: Path) -> None:
    """As from the shell: one command starts both. Another number of processes goes on."""
    (tmp_path / "model.py").write_text(MODEL)
    painted(tmp_path / "photos", 400)
    command = [sys.executable, "-m", "attribution", "run", "photos", "-t", "grad_cam", "--model", "model.py:make"]
    command += ["--batch-size", "2", "--threads", "1", "--device", "cpu", "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = subprocess.Popen(
        [*command, "run", "--devices", "2"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 300
    while not forked.shards(tmp_path / "run"):
        assert time.monotonic() < end
        assert both.poll() is None
        time.sleep(0.01)
    (child,) = [
        int(pid)
        for pid in os.listdir("/proc")
        if pid.isdigit() and _parent(pid) == both.pid and b"attribution" in _command(pid)
    ]
    os.kill(child, signal.SIGKILL)
    _, said = both.communicate(timeout=120)
    assert both.returncode not in (0, 1), said
    assert "ended with code -9" in said or "terminated with code -9" in said or "is gone" in said
    left = forked.shards(tmp_path / "run")
    assert 0 < len(left) < 200
    before = {path: path.read_bytes() for path in left}
    alone = subprocess.run([*command, "run"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    assert f"{len(left)} of 200 shards are done" in alone.stderr
    assert all(path.read_bytes() == data for path, data in before.items())
    assert [entry.number for entry, _, _ in runs.open(tmp_path / "run")] == list(range(400))


def _parent(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
