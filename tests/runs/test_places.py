"""Places of bad items are filled, and nothing of what fills them is kept; the tests see what is wrong."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from attribution import (
    GradCAM,
    Occlusion,
    explain_many,
    runs,
)
from attribution.errors import InputError, OutputError
from attribution.runs import Batch, Examples, FunctionWork, Part, carry_out, computing, files
from attribution.runs.folder import RunFolder
from attribution.testing import small_cnn
from tests.runs.asked import QUIET, means, ran
from tests.runs.data import Means, Noise


@pytest.fixture
def without_filling(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bad items shrink the batch instead of having their places filled."""
    sizes: list[int] = []
    real = computing._compute

    def shrunk(work: Any, items: Any, slots: list[int], wanted: list[bool], device: Any, done: Any) -> None:
        kept = [slot for slot, flag in zip(slots, wanted, strict=True) if flag]
        sizes.append(len(kept))
        real(work, items, kept, [True] * len(kept), device, done)

    monkeypatch.setattr(computing, "_compute", shrunk)
    return sizes


def test_places_are_filled_so_that_batches_keep_their_size(tmp_path: Path, without_filling: list[int]) -> None:
    work = Means()
    means(tmp_path / "a", work, Examples(Noise(4, bad=(1, 2))))
    assert without_filling == [2]
    assert work.sizes == [1, 2]


def test_places_of_bad_items_go_through_the_model_and_are_not_kept(tmp_path: Path) -> None:
    work = Means()
    means(tmp_path, work, Examples(Noise(4, bad=(1, 2))))
    assert work.sizes == [1, 4]
    record, tensors = RunFolder.read(tmp_path).read_shard(0)
    assert tensors["0/means"].tolist() == pytest.approx([float(Noise(4)[item][0].mean()) for item in (0, 3)])
    assert [entry["row"] for entry in record["items"]] == [0, None, None, 1]


def test_a_batch_says_which_items_it_holds(tmp_path: Path) -> None:
    seen: list[tuple[tuple[int, ...], list[int]]] = []

    def note(batch: Batch, keep: Sequence[int]) -> Part:
        means = batch.inputs.mean(dim=(1, 2, 3))
        expected = torch.stack([Noise(9)[item][0].mean() for item in batch.items])
        assert torch.allclose(means, expected, rtol=0, atol=1e-6)
        seen.append((batch.items, list(keep)))
        lines = [[{"mean": float(means[row]), "place": batch.items[row]}] for row in keep]
        return Part({}, {}, lines)

    work = FunctionWork(model=small_cnn(), function=note, kind="places", columns={"mean": "double", "place": "int64"})
    carry_out(work, Examples(Noise(9, bad=(1, 5))), tmp_path, QUIET)
    assert seen == [((0,), [0]), ((0, 0, 2, 3), [0, 2, 3]), ((4, 4, 6, 7), [0, 2, 3]), ((8,), [0])]
    found = [(line["item"], line["place"], line["mean"]) for line in runs.lines(RunFolder.read(tmp_path))]
    assert [(item, place) for item, place, _ in found] == [(item, item) for item in (0, 2, 3, 4, 6, 7, 8)]
    assert [mean for _, _, mean in found] == pytest.approx([float(Noise(9)[item][0].mean()) for item, _, _ in found])


class _Leaky(Means):
    """A work that adds rows of its own for items that it was told not to keep."""

    def __call__(self, batch: Batch, keep: Sequence[int]) -> Part:
        return super().__call__(batch, range(len(batch)))


def test_a_work_that_keeps_what_only_fills_a_place_is_seen(tmp_path: Path) -> None:
    means(tmp_path, _Leaky(), Examples(Noise(4, bad=(1, 2))))
    assert len(RunFolder.read(tmp_path).read_shard(0)[1]["0/means"]) == 4  # and not 2, as above


def test_a_lock_is_held_while_a_run_goes_on(tmp_path: Path) -> None:
    said = []

    def again(*arguments: Any) -> None:
        (tmp_path / ".writing-1-a").touch()  # a table that the first run is writing
        with pytest.raises(OutputError) as caught:
            ran(tmp_path)
        said.append(str(caught.value))
        (tmp_path / ".writing-1-a").unlink()

    carry_out(Means(), Examples(Noise(2)), tmp_path, QUIET, on_shard=again)
    assert "under way in this process" in said[0]
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["kind"] == "means"
    with pytest.raises(InputError, match="holds 'means', no attributions"):
        runs.open(tmp_path)
    assert files.regular(tmp_path / "scores.parquet")


def test_occlusion_and_captum_in_one_run(tmp_path: Path) -> None:
    technique = Occlusion(window=5, stride=4)
    found = ran(tmp_path, 3, techniques=[technique, GradCAM(layers=("body",))], backend="captum", target=1)
    images = torch.stack([Noise(3)[item][0] for item in range(3)])
    both = {"occlusion": technique, "grad_cam": GradCAM(layers=("body",))}
    expected = explain_many(small_cnn(), images, both, backend="captum", target=1)["occlusion"].map
    assert torch.equal(torch.cat([answer.map for _, name, answer in found if name == "occlusion"]), expected)
