"""A run against `explain` itself: the same bits, whatever was broken off, spread or bad in between."""

import errno
import gc
import json
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from torch import Tensor, nn

from attribution import (
    Activations,
    ClassScore,
    Execution,
    FilterVisualization,
    GradCAM,
    Occlusion,
    Saliency,
    explain,
    explain_many,
    runs,
)
from attribution.errors import InputError, OutputError, ResourceError, TargetError
from attribution.runs import Batch, Examples, Part, Plan, carry_out, computing, files
from attribution.runs.folder import RunFolder
from attribution.testing import small_cnn
from tests.cases import OF_INPUTS
from tests.draw import some
from tests.runs.data import TECHNIQUES, Means, Noise, contents, negative, painted, to_tensor

QUIET = Plan(batch_size=4, progress=False)


def ran(out: Path, count: int = 11, *, bad: Sequence[int] = (), **options: Any) -> runs.OpenRun:
    settled: dict[str, Any] = {"batch_size": 4, "progress": False, **options}
    techniques = settled.pop("techniques", TECHNIQUES)
    return runs.run(settled.pop("model", small_cnn()), Noise(count, bad=bad), techniques, out=out, **settled)


def means(out: Path, work: Means, items: Any, plan: Plan = QUIET, **options: Any) -> runs.Outcome:
    return carry_out(work, items, out, plan, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    return ran(tmp_path_factory.mktemp("whole")).folder.root


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
    outcome = means(tmp_path, work, Examples(_Front(images, refused)), replace(QUIET, batch_size=8))
    assert outcome.failed == len(refused)
    record, tensors = RunFolder.read(tmp_path).read_shard(0)
    order = [item for item in range(8) if item not in refused] + refused
    for place, entry in enumerate(record["items"]):
        if order[place] in refused:
            assert entry["error"] == "InputError: it is negative"
        else:
            assert tensors["0/means"][entry["row"]] == images[order[place]][0].mean()
    assert work.sizes[-1] == 8  # those that are good went together, at the places they had


class _Front:
    """The same examples with some at the end, so that the first one can be tried."""

    def __init__(self, images: Noise, last: Sequence[int]) -> None:
        self.images, self.order = images, [item for item in range(len(images)) if item not in last] + list(last)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Any:
        return self.images[self.order[index]]


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


# --- what is another run ---------------------------------------------------------------------------------


def _other_weights() -> nn.Module:
    model = small_cnn()
    with torch.no_grad():
        next(model.parameters())[0, 0, 0, 0] += 1e-3
    return model


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "technique": ({"techniques": {**TECHNIQUES, "saliency": Saliency(absolute=False)}}, "work.techniques.saliency"),
    "one technique less": ({"techniques": {"cam": TECHNIQUES["cam"]}}, "work.techniques.saliency"),
    "backend": ({"backend": "captum"}, "work.backend"),
    "target": ({"target": 1}, "work.target"),
    "weights": ({"model": _other_weights()}, "model.weights"),
    "structure": ({"model": small_cnn(classes=6)}, "model.structure"),
    "labels": ({"labels": ["a", "b", "c", "d", "e"]}, "labels was"),
    "threads": ({"threads": 2}, "threads was 1 and is 2"),
    "precision": ({"execution": Execution(autocast=torch.bfloat16)}, "work.execution.autocast"),
    "items": ({"count": 12}, "items was"),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_another_run_is_refused_and_named(whole: Path, change: str) -> None:
    options, said = CHANGES[change]
    before = contents(whole)
    with pytest.raises(InputError, match="holds another run") as caught:
        ran(whole, **options)
    assert said in str(caught.value)
    assert contents(whole) == before


def test_another_version_is_another_run(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attribution.runs import fingerprint

    found = fingerprint.versions()
    monkeypatch.setattr(fingerprint, "versions", lambda *names: {**found, "torch": "1.0"})
    with pytest.raises(InputError, match=r"versions\.torch was .* and is \"1\.0\""):
        ran(whole)


def test_execution_that_changes_no_result_is_the_same_run(whole: Path) -> None:
    ran(whole, execution=Execution(offload=True, progress=True), workers=1)


def test_inputs_that_changed_are_refused_and_repaired_ones_computed(tmp_path: Path) -> None:
    photos = painted(tmp_path / "photos", 6, bad=(4,))

    def again() -> runs.OpenRun:
        items = runs.of_folder(photos, to_tensor)
        return runs.run(small_cnn(), items, Saliency(), out=tmp_path / "run", batch_size=3, progress=False)

    first = again()
    assert [entry.number for entry in first.failures] == [4]
    assert first.failures[0].sha256 is not None
    before = contents(tmp_path / "run")
    assert contents(again().folder.root) == before
    clean = tmp_path / "clean"
    painted(clean, 6)
    shutil.copy(clean / "0004.png", photos / "0004.png")
    repaired = again()
    assert repaired.failures == []
    after = contents(tmp_path / "run")
    assert [name for name in after if after[name] != before[name]] == ["shards/00000/00000001.safetensors"]
    cleaned = runs.run(
        small_cnn(), runs.of_folder(clean, to_tensor), Saliency(), out=tmp_path / "c", batch_size=3, progress=False
    )
    assert contents(cleaned.folder.root).keys() == after.keys()
    for mine, other in zip(repaired, cleaned, strict=True):
        assert torch.equal(mine[2].map, other[2].map)
    shutil.copy(clean / "0003.png", photos / "0001.png")
    with pytest.raises(InputError, match=r"not what they were when they were computed: 0001\.png"):
        again()
    assert contents(tmp_path / "run") == after
    (photos / "0009.png").write_bytes(b"")
    with pytest.raises(InputError, match="items was"):
        again()


def test_damaged_shards_are_computed_again(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    path = RunFolder.read(out).path(1)
    data = bytearray(path.read_bytes())
    data[-3] ^= 64
    path.write_bytes(data)
    RunFolder.read(out).path(2).write_bytes(b"")
    with pytest.raises(OutputError, match="damaged"):
        list(runs.open(out))
    ran(out, progress=True)
    told = capsys.readouterr().err
    assert "2 shards are damaged" in told
    assert "1 of 3 shards are done" in told
    assert "run: 7/7 items" in told
    assert contents(out) == contents(whole)


# --- how a run ends --------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_after_the_shard_under_way(whole: Path, tmp_path: Path, number: int) -> None:
    assert stopped_by(number, 1, tmp_path).args == (number, 2)
    assert [*contents(tmp_path)] == ["shards/00000/00000000.safetensors"]
    assert len(parquet.read_table(tmp_path / "scores.parquet")) == 8
    ran(tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_a_second_signal_ends_it_at_once(whole: Path, tmp_path: Path) -> None:
    error = stopped_by(signal.SIGINT, 2, tmp_path)
    assert isinstance(error, KeyboardInterrupt)
    assert not error.args
    assert contents(tmp_path) == {}
    ran(tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_the_door_says_that_a_signal_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*arguments: Any) -> None:
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
    for wrong, said in (({}, "needs a technique"), ({"a/b": Saliency()}, "no name"), ({"a": 3}, "is 3")):
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


# --- what a run leaves -----------------------------------------------------------------------------------


def test_the_model_torch_and_the_process_are_as_before(tmp_path: Path) -> None:
    model = small_cnn().train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hooks = [len(module._forward_hooks) for module in model.modules()]

    def look() -> tuple[Any, ...]:
        return (
            torch.get_rng_state().tolist(),
            random.getstate(),
            str(np.random.get_state()),  # noqa: NPY002  # of those who still draw from it
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            threading.active_count(),
            dict(os.environ),
        )

    before = look()
    ran(tmp_path, model=model, threads=2)
    assert look() == before
    assert all(module.training for module in model.modules())
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


class _Counting(nn.Module):
    """A forward that changes an attribute of the model, which `attribution.prepared` does not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = small_cnn(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.inner(x)
        return out


def test_a_model_that_changes_itself_is_run_all_the_same(tmp_path: Path) -> None:
    found = ran(tmp_path, 3, model=_Counting(), techniques=Saliency())
    expected = explain(small_cnn(), torch.stack([Noise(3)[item][0] for item in range(3)]), Saliency()).map
    assert torch.equal(torch.cat([answer.map for _, _, answer in found]), expected)


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_files_and_threads_stay_flat_over_a_thousand_images(tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []

    def look(folder: Any, record: Any, *rest: Any) -> None:
        if record["items"][0]["item"] in (100, 500, 980):
            gc.collect()
            seen.append((_resident(), len(os.listdir("/proc/self/fd")), threading.active_count()))

    work = runs.Explaining(small_cnn(), {"cam": GradCAM(layers=("body",))})
    items = Examples(Noise(1000, size=(16, 16)))
    carry_out(work, items, tmp_path, Plan(batch_size=20, progress=False), on_shard=look)
    assert len(seen) == 3
    assert max(size for size, _, _ in seen) - seen[0][0] <= 5 * 2**20
    assert {counts[1:] for counts in seen} == {seen[0][1:]}


def test_a_thousand_images_of_which_one_in_twenty_is_bad(tmp_path: Path) -> None:
    bad = [item for item in range(1000) if item % 20 == 7]
    photos, clean = painted(tmp_path / "photos", 1000, bad=bad), painted(tmp_path / "clean", 1000)
    outs = {}
    for name, folder in (("mixed", photos), ("good", clean)):
        items = runs.of_folder(folder, to_tensor)
        outs[name] = runs.run(
            small_cnn(), items, GradCAM(layers=("body",)), out=tmp_path / name, batch_size=50, progress=False
        )
    good = {entry.number: answer.map for entry, _, answer in outs["good"]}
    mixed = {entry.number: answer.map for entry, _, answer in outs["mixed"]}
    assert len(good) == 1000
    assert sorted(set(good) - set(mixed)) == bad == [entry.number for entry in outs["mixed"].failures]
    assert all(torch.equal(mixed[number], good[number]) for number in mixed)


# --- the tests see what is wrong ---------------------------------------------------------------------------


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
        with pytest.raises(OutputError) as caught:
            ran(tmp_path)
        said.append(str(caught.value))

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
