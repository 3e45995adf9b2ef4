"""One run on two processes: each item once, and what one that is killed leaves for the other to do."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from attribution import runs
from tests.runs import forked
from tests.runs.data import contents, painted
from tests.runs.killed import COUNT, noise_run
from tests.runs.loaded import MODEL


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


def test_two_processes_compute_each_item_once(tmp_path: Path, undisturbed: Path) -> None:
    root = tmp_path / "run"
    for process in both(root):
        process.join(200)
        assert process.exitcode == 0, (tmp_path / "run.log").read_text()
    assert contents(root) == contents(undisturbed)
    assert [entry.number for entry, _, _ in runs.open(root)] == list(range(COUNT))
    assert (root / "scores.parquet").exists()


def test_one_process_goes_on_where_one_of_two_was_killed(tmp_path: Path, undisturbed: Path) -> None:
    root = tmp_path / "run"
    first, second = both(root)
    forked.wait_for(root, first, count=4)
    forked.kill(second)
    second.join(60)
    first.join(120)
    assert first.exitcode == 1
    assert "ResourceError: another process of the run is gone" in (tmp_path / "run.log").read_text()
    left = forked.shards(root)
    assert 4 <= len(left) < len(contents(undisturbed))
    before = {path: path.stat().st_mtime_ns for path in left}
    noise_run(root)
    assert contents(root) == contents(undisturbed)
    assert all(path.stat().st_mtime_ns == time_ for path, time_ in before.items())  # what was done is not done again


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
