"""``kill -9`` of all processes of a run at any moment: nothing corrupt, nothing twice, the same bytes in the end."""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from attribution import runs
from attribution.errors import OutputError
from attribution.runs import shard
from tests.runs import forked
from tests.runs.data import contents, painted
from tests.runs.killed import COUNT, FIRST, LAST, SHARD, STEPS, noise_run
from tests.runs.loaded import MODEL

SHARDS = COUNT // SHARD


def whole_under_their_names(root: Path, undisturbed: Path) -> int:
    """Hold what a kill left under final names against the run that nothing disturbed; how many shards there are."""
    expected = contents(undisturbed)
    left = forked.shards(root)
    assert left
    for path in left:  # to the byte
        assert path.read_bytes() == expected[str(path.relative_to(root))]
        shard.read(path)
    assert {entry.number for entry in runs.open(root).entries} == {
        item for path in left for item in range(int(path.stem) * SHARD, int(path.stem) * SHARD + SHARD)
    }
    if (root / "scores.parquet").exists():
        assert (root / "scores.parquet").read_bytes() == (undisturbed / "scores.parquet").read_bytes()
    return len(left)


def moment(root: Path, left: int) -> str:
    """When a kill came, of what it left."""
    if (root / "scores.parquet").exists():
        return "ended"
    if list(root.rglob(".writing-*")):
        return "in a write"
    return "before the table" if left == SHARDS else "between two writes"


def one_result_each(root: Path, undisturbed: Path) -> None:
    """A run that went on to its end: one result per image, the bytes of the run that nothing disturbed, and no rest."""
    assert contents(root) == contents(undisturbed)
    assert [entry.number for entry, _, _ in runs.open(root)] == list(range(COUNT))
    assert (root / "scores.parquet").read_bytes() == (undisturbed / "scores.parquet").read_bytes()
    assert not list(root.rglob(".writing-*"))


def killed(root: Path, undisturbed: Path, number: int, kills: int) -> list[str]:
    """Kill a run, go on with it, and tell when the kill came.

    Every other kill is aimed at a step of a write, and comes from within. The others come from outside, at a random
    moment after a random number of shards, so that a busy machine spreads them as an idle one does.
    """
    draw = random.Random(1000 * kills + number)
    workers = number % 3 % 2  # a third of them with a process that reads
    step = STEPS[number // 2 % len(STEPS)] if number % 2 == 0 else None
    if step is not None:
        write = draw.randint(FIRST + 1, LAST + 1)
        process = forked.started(root, body="tests.runs.killed:dying_run", write=write, step=step, workers=workers)
    else:
        process = forked.started(root, workers=workers)
        forked.wait_for(root, process, count=draw.randint(1, SHARDS))
        time.sleep(draw.uniform(0, 0.02))
        forked.kill(process)
    process.join(120)
    left = whole_under_their_names(root, undisturbed)
    seen = [moment(root, left), *([] if step is None else [step])]
    if seen[0] != "ended":
        assert process.exitcode == -signal.SIGKILL
        seen.append(f"quarter {4 * (left - 1) // SHARDS}")
    noise_run(root)
    one_result_each(root, undisturbed)
    return seen


@pytest.mark.parametrize("kills", [6, *(pytest.param(many, marks=[pytest.mark.slow]) for many in (60, 500))])
def test_killed_at_any_moment(tmp_path: Path, undisturbed: Path, kills: int) -> None:
    seen: Counter[str] = Counter()
    for number in range(kills):
        seen.update(killed(tmp_path / f"{number}", undisturbed, number, kills))
        shutil.rmtree(tmp_path / f"{number}")
    print(f"{kills} kills:", dict(sorted(seen.items())))
    assert seen["in a write"] >= kills // 6
    assert sum(seen[f"quarter {quarter}"] for quarter in range(4)) >= kills // 2  # and not of runs that had ended
    if kills >= 60:
        wanted = [*STEPS, *(f"quarter {quarter}" for quarter in range(4)), "between two writes"]
        assert all(seen[each] >= kills // 20 for each in wanted), seen


@pytest.mark.parametrize("write", [FIRST + 7, LAST + 1])
def test_an_engine_that_writes_in_place_is_caught(tmp_path: Path, undisturbed: Path, write: int) -> None:
    """The mutant: no temporary file, no move. A shard that is cut short is seen, and so is a table."""
    for name, in_place in (("mutant", True), ("ours", False)):
        options: dict[str, Any] = {"write": write, "step": "part", "in_place": in_place}
        process = forked.started(tmp_path / name, body="tests.runs.killed:dying_run", **options)
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
    with pytest.raises((AssertionError, OutputError)):
        whole_under_their_names(tmp_path / "mutant", undisturbed)
    assert whole_under_their_names(tmp_path / "ours", undisturbed) == write - FIRST


ARGUMENTS = ["run", "photos", "-t", "grad_cam", "--model", "model.py:make", "--batch-size", f"{SHARD}"]
ARGUMENTS += ["--threads", "1", "--device", "cpu", "--out"]


@pytest.mark.slow
def test_the_command_is_killed(tmp_path: Path) -> None:
    """Six times as from the shell, in a new process each; a process that has imported all before goes on."""
    (tmp_path / "model.py").write_text(MODEL)
    painted(tmp_path / "photos", COUNT)

    def finished(name: str) -> Path:
        arguments = [*ARGUMENTS, name]
        process = forked.started(tmp_path / name, body="tests.runs.killed:command", arguments=arguments)
        process.join(300)
        assert process.exitcode == 0, (tmp_path / f"{name}.log").read_text()
        return tmp_path / name

    undisturbed = finished("undisturbed")
    seen: Counter[str] = Counter()
    for number in range(6):
        draw, root = random.Random(number), tmp_path / f"{number}"
        shell = [sys.executable, "-m", "attribution", *ARGUMENTS, root.name]
        process = subprocess.Popen(shell, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)
        forked.wait_for(root, process, count=draw.randint(1, SHARDS), seconds=300)
        time.sleep(draw.uniform(0, 0.02))
        forked.kill(process)
        process.wait(60)
        seen[moment(root, whole_under_their_names(root, undisturbed))] += 1
        one_result_each(finished(root.name), undisturbed)
    print("6 kills of the command:", dict(seen))
    assert seen["ended"] < 6
