"""A run against `explain_many` itself: the same bits, whatever was broken off, spread or bad in between."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
import torch
from torch import Tensor

from attribution import (
    Activations,
    ClassScore,
    GradCAM,
    Saliency,
    explain,
    explain_many,
    runs,
)
from attribution.errors import InputError, ResourceError, TargetError
from attribution.runs import Examples
from attribution.runs.folder import RunFolder
from attribution.testing import small_cnn
from tests.cases import OF_INPUTS
from tests.draw import some
from tests.runs.asked import QUIET, Reordered, means, ran
from tests.runs.data import TECHNIQUES, Means, Noise, contents, negative, painted, to_tensor


def test_results_are_those_of_explain_many_to_the_bit(whole: Path) -> None:
    model, found = small_cnn(), list(runs.open(whole))
    assert [(entry.number, entry.name, name) for entry, name, _ in found] == [
        (item, str(item), name) for item in range(11) for name in ("cam", "saliency")
    ]
    for entry, name, answer in found:
        first = entry.number // 4 * 4
        images = torch.stack([Noise(11)[item][0] for item in range(first, min(first + 4, 11))])
        expected = explain_many(model, images, TECHNIQUES)[name]
        row = slice(entry.number - first, entry.number - first + 1)
        assert answer.maps.keys() == expected.maps.keys()
        assert all(torch.equal(answer.maps[key], expected.maps[key][row]) for key in expected.maps)
        assert expected.target is not None
        assert expected.scores is not None
        assert answer.target is not None
        assert answer.scores is not None
        assert torch.equal(answer.target, expected.target[row])
        assert torch.equal(answer.scores, expected.scores[row])
        assert answer.technique == expected.technique
        assert answer.score == ClassScore(expected.target[row], of="logit")
        assert entry.error is None
    one = runs.open(whole)[5]
    assert torch.equal(one["cam"].map, found[10][2].map)
    with pytest.raises(InputError, match="no item 11"):
        runs.open(whole)[11]


def test_the_table_tells_each_score_and_where_its_map_lies(whole: Path) -> None:
    lines = parquet.read_table(whole / "scores.parquet").to_pylist()
    assert len(lines) == 22
    for line, (entry, name, answer) in zip(lines, runs.open(whole), strict=True):
        assert answer.target is not None
        assert answer.scores is not None
        target, score = int(answer.target), float(answer.scores)
        assert (line["item"], line["technique"], line["target"], line["score"]) == (entry.number, name, target, score)
        assert line["label"] == f"class {target}"
        _, tensors = RunFolder.read(whole).read_shard(line["shard"])
        key = "body" if name == "cam" else "input"
        assert torch.equal(tensors[f"{line['part']}/{name}/maps/{key}"][line["row"]], answer.maps[key][0])
    before = (whole / "scores.parquet").read_bytes()
    (whole / "scores.parquet").unlink()
    runs.open(whole).rebuild()
    assert (whole / "scores.parquet").read_bytes() == before
    assert not (whole / "failures.csv").exists()


PAIRS = some([pytest.param(name, id=name) for name in OF_INPUTS], 0.2, whole=("grad_cam", "occlusion"))


@pytest.mark.parametrize("name", PAIRS)
def test_any_technique_is_broken_off_and_resumed_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    technique = OF_INPUTS[name]
    ran(tmp_path / "a", 6, techniques=technique, batch_size=2)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    RunFolder.read(tmp_path / "b").path(0).unlink()
    RunFolder.read(tmp_path / "b").path(2).unlink()
    ran(tmp_path / "b", 6, techniques=technique, batch_size=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize(("gone", "workers"), [((0,), 0), ((2, 0), 1), ((0, 1, 2), 2), ((), 0)])
def test_any_resume_point_and_number_of_workers(whole: Path, tmp_path: Path, gone: Sequence[int], workers: int) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    for number in gone:
        RunFolder.read(out).path(number).unlink()
    (out / "shards" / "00000" / ".writing-1-ab").write_bytes(b"half")
    again = ran(out, workers=workers)
    assert contents(out) == contents(whole)
    assert again.finished
    assert not list(out.rglob(".writing-*"))
    assert (out / "scores.parquet").read_bytes() == (whole / "scores.parquet").read_bytes()


def test_another_batch_size_may_change_bits_and_is_another_run(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    ran(tmp_path / "run", batch_size="auto")  # that of the run
    with pytest.raises(InputError, match="batch_size was 4 and is 3"):
        ran(tmp_path / "run", batch_size=3)


def test_bad_items_leave_the_others_as_they_are(whole: Path, tmp_path: Path) -> None:
    bad = (0, 3, 5, 8, 9, 10)  # the last shard has none that is good
    found = ran(tmp_path / "run", bad=bad)
    clean = {(entry.number, name): answer for entry, name, answer in runs.open(whole)}
    good = [(entry.number, name) for entry, name, _ in found]
    assert sorted({number for number, _ in good}) == [1, 2, 4, 6, 7]
    for entry, name, answer in found:
        for key, map_ in answer.maps.items():
            assert torch.equal(map_, clean[entry.number, name].maps[key])
    assert [entry.number for entry in found.failures] == list(bad)
    assert found.failures[1].error == "example 3 cannot be read: ValueError: no 3"
    lines = (tmp_path / "run" / "failures.csv").read_text().splitlines()
    assert lines[:2] == ["item,name,error", "0,0,example 0 cannot be read: ValueError: no 0"]
    with pytest.raises(InputError, match="item 3, '3', failed: example 3"):
        found[3]


def test_items_that_the_work_refuses_are_found_one_by_one(tmp_path: Path) -> None:
    images = Noise(8)
    refused = [item for item in range(8) if images[item][0].mean() < 0]
    assert 2 <= len(refused) <= 6
    work = Means(refuses=negative)
    outcome = means(tmp_path, work, Examples(Reordered(images, refused)), replace(QUIET, batch_size=8))
    assert outcome.failed == len(refused)
    record, tensors = RunFolder.read(tmp_path).read_shard(0)
    order = [item for item in range(8) if item not in refused] + refused
    for place, entry in enumerate(record["items"]):
        if order[place] in refused:
            assert entry["error"] == "InputError: it is negative"
        else:
            assert tensors["0/means"][entry["row"]] == images[order[place]][0].mean()
    assert work.sizes[-1] == 8  # those that are good went together, at the places they had


def test_what_fails_together_only_goes_alone(tmp_path: Path) -> None:
    work = Means(refuses=lambda inputs: RuntimeError("too many") if len(inputs) > 1 else None)
    assert means(tmp_path, work, Examples(Noise(4))).failed == 0
    record, tensors = RunFolder.read(tmp_path).read_shard(0)
    assert [entry["part"] for entry in record["items"]] == [0, 1, 2, 3]
    assert torch.cat([tensors[f"{part}/means"] for part in range(4)]).tolist() == pytest.approx(
        [float(Noise(4)[item][0].mean()) for item in range(4)]
    )


def test_memory_that_ends_halves_the_batch_for_good(tmp_path: Path) -> None:
    def no_room(inputs: Tensor) -> Exception | None:
        return torch.OutOfMemoryError("CUDA out of memory") if len(inputs) > 2 else None

    work = Means(refuses=no_room)
    assert means(tmp_path, work, Examples(Noise(16)), replace(QUIET, batch_size=8)).failed == 0
    assert work.sizes == [1, 8, 4, *[2] * 8]  # one item is tried before all others
    assert RunFolder.read(tmp_path).read_shard(0)[0]["together"] == 2
    # No single one has room: an item's error, and the run goes on.
    third = Noise(4)[2][0]

    def large(inputs: Tensor) -> Exception | None:
        return ResourceError("no room") if any(torch.equal(each, third) for each in inputs) else None

    assert means(tmp_path / "b", Means(refuses=large), Examples(Noise(4))).failed == 1
    assert "ResourceError: no room" in (tmp_path / "b" / "failures.csv").read_text()


def test_items_of_several_shapes_go_together_by_shape(tmp_path: Path) -> None:
    sizes = [(13, 17), (9, 9), (13, 17), (9, 9)]
    images = [Noise(4, size=size)[item][0] for item, size in enumerate(sizes)]
    found = runs.run(small_cnn(), images, GradCAM(layers=("body",)), out=tmp_path, batch_size=4, progress=False)
    for entry, _, answer in found:
        same = [image for image in images if image.shape == images[entry.number].shape]
        expected = explain(small_cnn(), torch.stack(same), GradCAM(layers=("body",)))
        assert torch.equal(answer.map[0], expected.map[entry.number // 2])


def test_targets_of_all_kinds(tmp_path: Path) -> None:
    cam, images = GradCAM(layers=("body",)), torch.stack([Noise(3)[item][0] for item in range(3)])
    cases: list[tuple[Any, Any]] = [
        (2, 2),
        ("all", "all"),
        ([[1, 3]], [[1, 3]] * 3),
        (ClassScore([[1, 3]], of="probability"), ClassScore([[1, 3]] * 3, of="probability")),
        (_spread, _spread),
    ]
    for number, (asked, told) in enumerate(cases):
        techniques = {"cam": cam, "activations": Activations(layers=("stem",))}
        found = ran(tmp_path / str(number), 3, techniques=techniques, target=asked)
        expected = explain_many(small_cnn(), images, techniques, target=told)["cam"]
        maps = [answer.map for _, name, answer in found if name == "cam"]
        assert torch.equal(torch.cat(maps), expected.map), asked
        assert all(answer.map.shape == (1, 6, 13, 17) for _, name, answer in found if name == "activations")
    for wrong in ([1, 2, 3], ClassScore([[1], [2]])):
        with pytest.raises(TargetError, match="asks the same of every item"):
            ran(tmp_path / "x", 3, techniques=cam, target=wrong)
    with pytest.raises(TargetError, match="out of range"):
        ran(tmp_path / "x", 3, techniques=cam, target=99)
    assert not (tmp_path / "x" / "run.json").exists()


def _spread(output: Tensor) -> Tensor:
    return output[:, 0] - output[:, 1]


def test_a_list_names_the_class_of_each_image(tmp_path: Path) -> None:
    painted(tmp_path / "photos", 3)
    (tmp_path / "photos" / "list.csv").write_text("path,target\n0000.png,1\n0001.png,4\n0002.png,0\n")
    items = runs.of_list(tmp_path / "photos" / "list.csv", to_tensor)
    found = runs.run(small_cnn(), items, Saliency(), out=tmp_path / "run", progress=False)
    images = torch.stack([items[item].inputs for item in range(3)])
    expected = explain(small_cnn(), images, Saliency(), target=[1, 4, 0]).map
    assert torch.equal(torch.cat([answer.map for _, _, answer in found]), expected)
    for text in ("path,target\n0000.png,1\n0001.png,4\n0002.png,3\n", "path\n0000.png\n0001.png\n0002.png\n"):
        (tmp_path / "photos" / "list.csv").write_text(text)
        items = runs.of_list(tmp_path / "photos" / "list.csv", to_tensor)
        with pytest.raises(InputError, match="targets was"):
            runs.run(small_cnn(), items, Saliency(), out=tmp_path / "run", progress=False)
