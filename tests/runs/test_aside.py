"""Threads that read and write beside the one that computes: the same bits, in order, and nothing that outlives them."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from attribution import Saliency, runs
from attribution.errors import OutputError
from attribution.runs import aside
from attribution.runs.committing import Committer
from attribution.runs.folder import RunFolder
from attribution.testing import small_cnn
from tests.runs.data import contents, painted, to_tensor

LARGE = torch.randn(100003, generator=torch.Generator().manual_seed(1))


def sums() -> list[float]:
    """Sums whose last bits go by the number of threads."""
    return [float(LARGE.sum()), float(LARGE.mean()), float(LARGE.norm()), float(LARGE.exp().sum())]


def threads_of_each(both: threading.Barrier) -> int:
    both.wait(60)  # so that each of two threads is asked once
    return torch.get_num_threads()


def test_torch_has_one_processor_aside_and_the_caller_what_it_had() -> None:
    before, threads, both = torch.get_num_threads(), threading.active_count(), threading.Barrier(2)
    try:
        torch.set_num_threads(1)
        alone = sums()
        for count in (2, 3):
            torch.set_num_threads(count)
            with aside.threads("a", 2) as pool:
                assert list(pool.map(threads_of_each, [both, both])) == [1, 1]
                assert torch.get_num_threads() == count
                together, beside = sums(), pool.submit(sums).result()
            assert beside == alone
            assert together != alone  # so that a thread that took the caller's number would be seen
            assert sums() == together
    finally:
        torch.set_num_threads(before)
    assert threading.active_count() == threads


def scaled(photo: Image.Image) -> Tensor:
    """A transform whose last bits go by the number of threads."""
    image = to_tensor(photo)
    return image + (LARGE * image[0, 0, 0]).sum()


@pytest.fixture
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_two_threads")
def test_images_read_ahead_are_those_read_in_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def seen(photo: Image.Image) -> Tensor:
        names.append(threading.current_thread().name)
        return scaled(photo)

    painted(tmp_path / "photos", 5, bad=(3,))
    with aside.threads("a") as pool:
        photo = Image.open(tmp_path / "photos" / "0000.png")
        assert not torch.equal(pool.submit(scaled, photo).result(), scaled(photo))
    found = {}
    for kind, ahead, workers in (("ahead", True, 0), ("in turn", False, 0), ("worker", True, 1)):
        items = runs.of_folder(tmp_path / "photos", seen, told="one")
        monkeypatch.setattr(items, "ahead", ahead, raising=False)
        options: dict[str, Any] = {"batch_size": 2, "threads": 2, "workers": workers, "progress": False}
        runs.run(small_cnn(), items, Saliency(), out=tmp_path / kind, **options)
        found[kind] = contents(tmp_path / kind)
        if not workers:
            assert {name.partition("_")[0] for name in names[1:]} == {"attribution-reader" if ahead else "MainThread"}
        names.clear()
    assert found["ahead"] == found["in turn"] == found["worker"]
    assert len(found["ahead"]) == 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("attribution-")]


def slow_writer(monkeypatch: pytest.MonkeyPatch, body: Callable[[int], None]) -> list[int]:
    """`RunFolder.write` after something else; the numbers of the shards that it wrote."""
    written: list[int] = []
    real = RunFolder.write

    def write(folder: RunFolder, number: int, *rest: Any) -> None:
        body(number)
        real(folder, number, *rest)
        written.append(number)

    monkeypatch.setattr(RunFolder, "write", write)
    return written


def a_folder(root: Path) -> RunFolder:
    from attribution.runs.folder import items_text

    listed = ["a", "b", "c"]
    settled = {"batch_size": 1, "items": items_text(listed), "columns": [], "kind": "means"}
    made = RunFolder.create(root, settled, listed, None, "nowhere")
    made.made()
    return made


def record(name: str) -> dict[str, Any]:
    return {"parts": [], "items": [{"name": name}]}


def test_a_shard_is_told_when_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, go = a_folder(tmp_path), threading.Event()
    written = slow_writer(monkeypatch, lambda number: [go.wait(60)].clear())
    committer = Committer(folder)
    assert committer.put(0, record("a"), {"x": torch.ones(2)}) is None
    assert written == []  # it is under way, and the caller went on
    go.set()
    assert committer.put(1, record("b"), {"x": torch.ones(2)}) == record("a")
    assert written[0] == 0
    assert committer.settle() == record("b")
    assert written == [0, 1]
    assert committer.settle() is None
    committer.close()
    assert [folder.read_shard(number)[0]["shard"] for number in folder.present()] == [0, 1]


def test_a_work_may_write_into_its_tensors_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, go = a_folder(tmp_path), threading.Event()
    slow_writer(monkeypatch, lambda number: [go.wait(60)].clear())
    committer, held = Committer(folder), torch.ones(2)
    committer.put(0, record("a"), {"x": held})
    held.fill_(3)
    go.set()
    committer.settle()
    committer.close()
    assert folder.read_shard(0)[1]["x"].tolist() == [1, 1]


def test_a_disk_that_refuses_is_heard_of_with_the_next_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = a_folder(tmp_path)

    def full(number: int) -> None:
        if number == 0:
            raise OutputError("no space")

    written = slow_writer(monkeypatch, full)
    committer = Committer(folder)
    committer.put(0, record("a"), {})
    with pytest.raises(OutputError, match="no space"):
        committer.put(1, record("b"), {})
    committer.close()
    assert written == []
    committer.put(2, record("c"), {})
    committer.close()  # without asking: what was begun is finished
    assert written == [2]
    committer.put(0, record("a"), {})
    with pytest.raises(OutputError, match="no space"):
        committer.settle()
    committer.close()
