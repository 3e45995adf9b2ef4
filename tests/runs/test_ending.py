"""Signals, full disks and works that refuse: how a run ends, and goes on."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from attribution import (
    FilterVisualization,
    Saliency,
    runs,
)
from attribution.errors import InputError, OutputError
from attribution.runs import Examples, carry_out
from attribution.runs.folder import RunFolder
from attribution.testing import small_cnn
from tests.runs.asked import QUIET, means, ran
from tests.runs.data import TECHNIQUES, Means, Noise, contents


def stopped_by(number: int, times: int, out: Path) -> BaseException:
    """A run of 11 items that is sent signals before its first shard is committed."""

    def send(*arguments: Any) -> None:
        for _ in range(times):
            os.kill(os.getpid(), number)

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    work = runs.Explaining(small_cnn(), TECHNIQUES)
    try:
        outcome = carry_out(work, Examples(Noise(11)), out, QUIET, on_shard=send)
    except (KeyboardInterrupt, SystemExit) as error:
        return error
    finally:
        assert {each: signal.getsignal(each) for each in before} == before
    return KeyboardInterrupt(outcome.signal, outcome.left)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_after_the_shard_under_way(whole: Path, tmp_path: Path, number: int) -> None:
    assert stopped_by(number, 1, tmp_path).args == (number, 2)
    assert [*contents(tmp_path)] == ["shards/00000/00000000.safetensors"]
    assert len(parquet.read_table(tmp_path / "scores.parquet")) == 8
    ran(tmp_path)
    assert contents(tmp_path) == contents(whole)


@pytest.mark.usefixtures("heard")
def test_a_second_signal_ends_it_at_once(whole: Path, tmp_path: Path) -> None:
    error = stopped_by(signal.SIGINT, 2, tmp_path)
    assert isinstance(error, KeyboardInterrupt)
    assert not error.args
    assert contents(tmp_path) == {}
    ran(tmp_path)
    assert contents(tmp_path) == contents(whole)


@pytest.mark.usefixtures("heard")
def test_the_door_says_that_a_signal_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: RunFolder, number: int, *arguments: Any) -> None:
        if number == 0:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(RunFolder, "write", write)
    with pytest.raises(KeyboardInterrupt, match="SIGINT"):
        ran(tmp_path)


@pytest.mark.parametrize("fails", ["open", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_refuses_ends_a_run_that_can_go_on(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, code: int
) -> None:
    real: Callable[..., Any] = getattr(os, fails)

    def refuse(path: Any, *arguments: Any, **options: Any) -> Any:
        if len(contents(tmp_path)) == 2 and (fails == "fsync" or ".writing-" in str(path)):
            raise OSError(code, os.strerror(code))
        return real(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, fails, refuse)
        with pytest.raises(OutputError, match=os.strerror(code)):
            ran(tmp_path)
    assert contents(tmp_path).items() < contents(whole).items()
    assert not list(tmp_path.rglob(".writing-*"))
    ran(tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_a_work_that_fails_everything_is_refused_before_a_file_is_written(tmp_path: Path) -> None:
    work = Means(refuses=lambda inputs: InputError("never"))
    with pytest.raises(InputError, match="never"):
        means(tmp_path / "run", work, Examples(Noise(3)))
    assert contents(tmp_path) == {}
    assert not (tmp_path / "run" / "run.json").exists()
    for wrong, said in (({}, "no technique"), ({"a/b": Saliency()}, "no name"), ({"a": 3}, "is 3")):
        with pytest.raises(InputError, match=said):
            ran(tmp_path / "x", techniques=wrong)
    with pytest.raises(InputError, match="two techniques are called"):
        ran(tmp_path / "x", techniques=[Saliency(), Saliency(absolute=False)])
    with pytest.raises(InputError, match="batch_size is 0"):
        ran(tmp_path / "x", batch_size=0)
    with pytest.raises(InputError, match="makes its own images"):
        ran(tmp_path / "x", techniques=FilterVisualization(layer="body", channels=(0,)))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        ran(tmp_path / "file" / "run")
    assert not (tmp_path / "x").exists()
