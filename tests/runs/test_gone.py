"""What is lost while a run goes on: folders, files, processes that read, and memory; and names that are nearly one."""

import errno
import multiprocessing
import os
import shutil
import signal
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
import torch

from attribution import Saliency, runs
from attribution.errors import InputError, OutputError, ResourceError
from attribution.images import files as image_files
from attribution.runs import Examples, Plan, carry_out, losses, of_folder
from attribution.runs.computing import Unread, read
from attribution.testing import small_cnn
from tests.runs import forked
from tests.runs.asked import QUIET, means, ran
from tests.runs.data import Means, Noise, contents, paint, painted, to_tensor


def explained(photos: Path, out: Path) -> runs.OpenRun:
    return runs.run(small_cnn(), of_folder(photos, to_tensor), Saliency(), out=out, progress=False, batch_size=2)


@pytest.mark.parametrize("lost", ["shards", "."])
def test_a_folder_that_is_removed_ends_the_run(tmp_path: Path, lost: str) -> None:
    def remove(folder: Any, *rest: Any) -> None:
        shutil.rmtree(folder.root / lost, ignore_errors=True)

    with pytest.raises(OutputError, match=r"cannot write \S+shards\S+: No such file"):
        carry_out(Means(), Examples(Noise(11)), tmp_path / "run", QUIET, on_shard=remove)
    assert means(tmp_path / "run", Means(), Examples(Noise(11))).left == 0


def test_a_folder_that_cannot_be_listed_is_no_run_that_has_not_begun(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "shards").rename(tmp_path / "run" / "elsewhere")
    assert not runs.open(tmp_path / "run").finished
    (tmp_path / "run" / "elsewhere").rename(tmp_path / "run" / "shards")

    def broken(path: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(os, "scandir", broken)
    with pytest.raises(OutputError, match="cannot list"):
        runs.open(tmp_path / "run").rebuild()
    assert (tmp_path / "run" / "scores.parquet").read_bytes() == (whole / "scores.parquet").read_bytes()


def test_a_process_that_reads_is_killed(tmp_path: Path) -> None:
    def kill(*arguments: Any) -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)

    plan = Plan(batch_size=2, workers=1, progress=False)
    with pytest.raises(ResourceError, match="a process that reads items is gone"):
        carry_out(Means(), Examples(Noise(40)), tmp_path / "killed", plan, on_shard=kill)
    assert means(tmp_path / "killed", Means(), Examples(Noise(40)), plan).left == 0
    carry_out(Means(), Examples(Noise(40)), tmp_path / "whole", plan)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("cause", [OSError(errno.EMFILE, "Too many open files"), MemoryError()])
def test_what_the_system_refuses_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: Exception
) -> None:
    photos = painted(tmp_path / "photos", 5, bad=(3,))
    clean = explained(photos, tmp_path / "clean")
    real = image_files._decode

    def decode(file: Any, path: Path, notes: list[str]) -> Any:
        if path.name == "0002.png":
            raise InputError("it cannot be decoded") from cause
        return real(file, path, notes)

    with monkeypatch.context() as patch:
        patch.setattr(image_files, "_decode", decode)
        found = explained(photos, tmp_path / "run")
        assert [entry.number for entry in found.failures] == [2, 3]
    again = explained(photos, tmp_path / "run")
    assert [entry.number for entry in again.failures] == [3]
    assert contents(tmp_path / "run") == contents(clean.folder.root)
    kept = (tmp_path / "run" / "shards" / "00000" / "00000001.safetensors").stat().st_mtime_ns
    explained(photos, tmp_path / "run")  # bad bytes are not tried again
    assert (tmp_path / "run" / "shards" / "00000" / "00000001.safetensors").stat().st_mtime_ns == kept


@pytest.mark.parametrize(("number", "to_blame"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_bytes_are_to_blame_unless_the_system_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, to_blame: bool
) -> None:
    def decode(file: Any, path: Path, notes: list[str]) -> Any:
        raise InputError("it cannot be decoded") from OSError(number, os.strerror(number))

    items = of_folder(painted(tmp_path, 1), to_tensor)
    monkeypatch.setattr(image_files, "_decode", decode)
    assert read(items, 0).sha256 == (items.digest(0) if to_blame else None)


@pytest.mark.parametrize(
    "error", [ConnectionResetError(104, "Connection reset by peer"), EOFError(), FileNotFoundError(2, "no socket")]
)
def test_a_connection_to_a_reader_that_breaks_off(error: Exception) -> None:
    """As where a process is killed while it hands over a shard; from elsewhere such an error is what it says."""
    told = losses.of_process(error, 1)
    assert "a process that reads items is gone" in str(told)
    assert type(error).__name__ in str(told)
    assert losses.of_process(error, 0) is None
    assert losses.of_process(OutputError("the disk"), 1) is None
    assert losses.of_process(RuntimeError("of a model"), 1) is None


def test_an_image_that_vanishes_is_a_failure_until_it_is_back(tmp_path: Path) -> None:
    photos = painted(tmp_path / "photos", 5)
    clean = explained(photos, tmp_path / "clean")
    items = of_folder(photos, to_tensor)
    (photos / "0003.png").unlink()
    assert isinstance(read(items, 3), Unread)
    found = runs.run(small_cnn(), items, Saliency(), out=tmp_path / "run", progress=False, batch_size=2)
    assert [entry.name for entry in found.failures] == ["0003.png"]
    with pytest.raises(InputError, match=r"1 gone: 0003\.png; give another folder"):
        explained(photos, tmp_path / "run")
    paint(photos / "0003.png", 3)
    explained(photos, tmp_path / "run")
    assert contents(tmp_path / "run") == contents(clean.folder.root)
    assert not (tmp_path / "run" / "failures.csv").exists()


def test_a_second_process_is_kept_out(tmp_path: Path, undisturbed: Path) -> None:
    first = forked.started(tmp_path / "run")
    forked.wait_for(tmp_path / "run", first, count=5)
    os.kill(first.pid or 0, signal.SIGSTOP)  # so that it is under way however slow the second one begins
    second = forked.started(tmp_path / "run")
    second.join(120)
    os.kill(first.pid or 0, signal.SIGCONT)
    first.join(120)
    assert (first.exitcode, second.exitcode) == (0, 1)
    assert f"is under way by process {first.pid} on" in (tmp_path / "run.log").read_text()
    assert contents(tmp_path / "run") == contents(undisturbed)


def test_names_that_differ_by_case_or_normal_form_are_several(tmp_path: Path) -> None:
    composed, apart = unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png")
    listed = ["a.png", "A.png", composed, apart, "a .png", "a\n.png"]
    for seed, name in enumerate(listed):
        paint(tmp_path / "photos" / name, seed)
    found = explained(tmp_path / "photos", tmp_path / "run")
    by_name = {entry.name: answer for entry, _, answer in explained(tmp_path / "photos", tmp_path / "run")}
    assert by_name.keys() == set(listed)
    assert len(found) == len(listed)
    told = parquet.read_table(tmp_path / "run" / "scores.parquet")["name"].to_pylist()
    assert sorted(told) == sorted(listed)
    maps = [by_name[name].map for name in listed]
    assert not any(torch.equal(a, b) for index, a in enumerate(maps) for b in maps[:index])


def test_one_image_is_a_run(tmp_path: Path) -> None:
    found = ran(tmp_path, 1, batch_size="auto")
    assert found.finished
    assert len(found.folder.shards) == 1
