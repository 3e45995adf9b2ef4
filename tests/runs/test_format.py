"""Files of shards: whole or not at all, believed to the last byte, and inside their folder."""

import json
import os
import signal
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attribution.errors import InputError, OutputError
from attribution.runs import files, names, shard
from attribution.runs.folder import RunFolder, differences, items_text
from attribution.runs.lock import locked

RECORD = {"shard": 0, "items": [{"name": 'a"checksum": "' + "0" * 64 + '".png\udcff\n'}], "parts": []}
TENSORS = {"0/x": torch.arange(6.0).view(2, 3), "0/y": torch.tensor([3, 1]), "0/z": torch.tensor(2.5)}


def test_a_shard_comes_back_and_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    shard.write(path, RECORD, TENSORS)
    record, tensors = shard.read(path)
    assert {name: record[name] for name in RECORD} == RECORD
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert shard.record(path) == record
    turned = dict(reversed(TENSORS.items()))
    assert path.read_bytes() == shard.encoded(dict(reversed(RECORD.items())), turned)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_shard_without_tensors_is_one(tmp_path: Path) -> None:
    shard.write(tmp_path / "a", RECORD, {})
    assert shard.read(tmp_path / "a")[1] == {}


def test_no_changed_byte_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    data = shard.encoded(RECORD, TENSORS)
    for place in range(0, len(data), 3):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(OutputError):
            shard.read(path)
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(OutputError):
            shard.read(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(OutputError):
        shard.read(path)
    path.write_bytes(data)
    shard.read(path)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    files.write(path, b"before")
    for name in ("fsync", "replace", "open"):
        with monkeypatch.context() as patch:

            def full(*arguments: object, **options: object) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr(os, name, full)
            with pytest.raises(OutputError, match=r"No space left|cannot write"):
                files.write(path, b"after")
        assert path.read_bytes() == b"before"
        assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_links_are_replaced_and_never_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"mine")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").symlink_to(tmp_path / "outside")
    files.write(root / "a", b"ours")
    assert (tmp_path / "outside").read_bytes() == b"mine"
    assert not (root / "a").is_symlink()
    (root / "shards").symlink_to(tmp_path)
    with pytest.raises(OutputError, match="link"):
        files.folder(root / "shards")
    (root / "b").symlink_to(root / "a")
    with pytest.raises(OutputError):
        shard.read(root / "b")
    (root / ".lock").symlink_to(tmp_path / "outside")
    with pytest.raises(OutputError), locked(root):
        pass
    assert (tmp_path / "outside").read_bytes() == b"mine"


HOSTILE = [
    *("..", "../../etc/passwd", "/etc/passwd", "a\0b", "a\nb", "x" * 5000, "CON", "nul.png", "a.", "a ", "-rf", ""),
    *("Å.png", "A\u030a.png", "a.png", "A.png", "b/a.png", "b\\a.png", "\udcff.png", "~", "$(x)", "*.png", ".hidden"),
]


def refused(name: str) -> bool:
    """Whether some file system would take the name for another, or not at all."""
    return (
        not name
        or len(os.fsencode(name)) > 200
        or name != os.path.basename(name)
        or name.startswith((".", "-"))
        or name.endswith((".", " "))
        or not all(letter.isascii() and (letter.isalnum() or letter in "._-") for letter in name)
        or name.split(".")[0].upper() in ("CON", "NUL", "AUX", "PRN")
    )


def test_hostile_names_stay_inside_and_apart() -> None:
    made = [names.safe(number, name) for number, name in enumerate(HOSTILE)]
    assert not [name for name in made if refused(name)]
    assert len({unicodedata.normalize("NFC", name).casefold() for name in made}) == len(HOSTILE)
    assert [name for name in HOSTILE if not refused(name)] == ["a.png", "A.png"]  # the rule sees what is wrong


@settings(
    max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(name=st.text(st.characters(), max_size=300), number=st.integers(0, 10**8 - 1))
def test_any_text_gives_a_name_inside(tmp_path: Path, name: str, number: int) -> None:
    made = names.safe(number, name)
    assert not refused(made)
    assert made.startswith(f"{number:08d}")
    assert (tmp_path / made).resolve().parent == tmp_path.resolve()


def forked(body: Callable[[], None]) -> int:
    """A child that does something and waits to be killed; it is ready when this returns."""
    ready, said = os.pipe()
    if (child := os.fork()) == 0:
        try:
            body()
            os.write(said, b"!")
            time.sleep(60)
        finally:
            os._exit(0)
    os.close(said)
    assert os.read(ready, 1) == b"!"
    os.close(ready)
    return child


def test_one_run_at_a_time_and_a_dead_one_lets_go(tmp_path: Path) -> None:
    held = locked(tmp_path)

    def hold() -> None:
        held.__enter__()
        forked(lambda: None)  # a child of it, such as a worker that reads items, outlives it and holds no lock

    holder = forked(hold)
    with pytest.raises(OutputError, match=f"process {holder} on"), locked(tmp_path):
        pass
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    with locked(tmp_path):
        with pytest.raises(OutputError, match="in this process"), locked(tmp_path):
            pass
        child = forked(lambda: None)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with locked(tmp_path):
        pass


def folder(root: Path, **changed: Any) -> RunFolder:
    listed = ["a", "b\udcff", "c\n", "d", "e"]
    settled = {"batch_size": 2, "items": items_text(listed), "columns": [], "kind": "means", **changed}
    made = RunFolder.create(root, settled, listed, ["x"], "nowhere")
    made.made()
    return made


def test_a_run_knows_its_shards(tmp_path: Path) -> None:
    run = folder(tmp_path)
    assert [list(run.items(number)) for number in run.shards] == [[0, 1], [2, 3], [4]]
    assert list(run.present()) == []
    record = {"items": [{"name": run.names[item]} for item in run.items(1)], "parts": []}
    run.write(1, record, TENSORS)
    assert list(run.present()) == [1]
    assert run.read_shard(1)[0]["items"] == record["items"]
    assert RunFolder.read(tmp_path) == run
    # A shard of another run, or in another's place, is none of this one.
    os.replace(run.path(1), run.path(0))
    with pytest.raises(OutputError, match="shard, items"):
        run.read_shard(0)
    other = folder(tmp_path / "..", threads=3)
    run.path(0).unlink()
    other.write(1, record, TENSORS)
    os.replace(other.path(1), run.path(1))
    with pytest.raises(OutputError, match="of another run: other run, settings"):
        run.read_shard(1)


def test_a_run_whose_list_was_changed_is_refused(tmp_path: Path) -> None:
    folder(tmp_path)
    path = tmp_path / "items.json"
    path.write_text(json.dumps([*json.loads(path.read_text())[:-1], "other"]))
    with pytest.raises(OutputError, match="was changed"):
        RunFolder.read(tmp_path)
    with pytest.raises(InputError, match="holds no run"):
        RunFolder.read(tmp_path / "nowhere")


def test_differences_name_what_changed() -> None:
    old = {"a": 1, "b": {"c": "x", "d": [1]}, "gone": None}
    assert differences(old, {"a": 1, "b": {"c": "y", "d": [1]}, "new": 3}) == [
        'b.c was "x" and is "y"',
        "new was null and is 3",
    ]
    assert differences(old, old) == []
