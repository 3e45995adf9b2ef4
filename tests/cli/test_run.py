"""``attribution run`` and ``attribution show``: what is typed, what is said, and the exit codes."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

from attribution import GradCAM, Occlusion, Saliency, explain_many, runs, zoo
from attribution.images import read
from attribution.runs.folder import RunFolder
from tests.runs.data import paint

Command = Callable[..., Any]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images and what is none."""
    for index in range(3):
        paint(tmp_path / "photos" / f"{index}.png", index, (40, 60))
    return tmp_path / "photos"


def test_a_folder_is_explained_as_one_image_is(photos: Path, spec: str, out: Path, attribution: Command) -> None:
    done = attribution("run", photos, "-t", "grad_cam", "-t", "saliency", "--model", spec, "--out", out, "--overlay")
    assert done.code == 0, done
    assert done.out == f"{out}  3 items\n"
    assert "3 images of folder" in done.err
    assert "run: 3/3 items [" in done.err
    loaded = zoo.load(spec)
    images = torch.cat([loaded.inputs(read(photos / f"{index}.png")) for index in range(3)])
    expected = explain_many(loaded.model, images, {"grad_cam": GradCAM(), "saliency": Saliency()})["grad_cam"]
    found = [answer for _, name, answer in runs.open(out) if name == "grad_cam"]
    assert torch.equal(torch.cat([answer.map for answer in found]), expected.map)
    assert expected.target is not None
    labels = {line["label"] for line in parquet.read_table(out / "scores.parquet").to_pylist()}
    assert labels == {loaded.label(int(target)) for target in expected.target}
    names = {
        f"0000000{index}-{index}.png.{key}.png" for index in range(3) for key in ("grad_cam.body", "saliency.input")
    }
    assert {path.name for path in (out / "overlays").iterdir()} == names
    for path in (out / "overlays").iterdir():
        with Image.open(path) as drawn:
            assert drawn.size == (23, 17)
            assert np.asarray(drawn).std() > 5
    page = attribution("show", out)
    assert page.out == f"{out / 'sheet.png'}\n"
    with Image.open(out / "sheet.png") as drawn:
        assert np.asarray(drawn.convert("RGB")).std() > 20
    again = attribution("run", photos, "-t", "grad_cam", "-t", "saliency", "--model", spec, "--out", out)
    assert again.code == 0
    assert "1 of 1 shards are done" in again.err


def test_a_run_that_ended_is_drawn_later(photos: Path, spec: str, out: Path, attribution: Command) -> None:
    words = ["run", photos, "-t", "grad_cam", "-t", "activations", "-l", "body", "--model", spec, "--batch-size", "2"]
    first = attribution(*words, "--out", out.with_name("first"), "--overlay")
    assert first.code == 0, first
    expected = {path.name: path.read_bytes() for path in (out.with_name("first") / "overlays").iterdir()}
    assert len(expected) == 3
    assert attribution(*words, "--out", out).code == 0
    assert not (out / "overlays").exists()
    assert attribution(*words, "--out", out, "--overlay").code == 0
    assert {path.name: path.read_bytes() for path in (out / "overlays").iterdir()} == expected
    kept = sorted((out / "overlays").iterdir())
    kept.pop(1).write_bytes(b"another's")
    kept.pop(0).unlink()
    times = [path.stat().st_mtime_ns for path in kept]
    assert attribution(*words, "--out", out, "--overlay").code == 0
    found = {path.name: path.read_bytes() for path in (out / "overlays").iterdir()}
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == [sorted(expected)[1]]  # it is there
    assert [path.stat().st_mtime_ns for path in kept] == times


def test_bad_images_are_counted_and_end_with_one(photos: Path, spec: str, out: Path, attribution: Command) -> None:
    (photos / "1.png").write_text("no image")
    Image.fromarray(np.full((40, 60), 3000, dtype=np.uint16)).save(photos / "2.png")
    done = attribution("run", photos, "-t", "grad_cam", "--model", spec, "--out", out)
    assert done.code == 1
    assert done.out == f"{out}  3 items · 1 failed: {out / 'failures.csv'}\n"
    assert "note: 2.png: its 16-bit values end at 3000" in done.err
    lines = (out / "failures.csv").read_text().splitlines()
    assert lines[1].startswith('1,1.png,"1.png is no image of a known format')
    assert attribution("show", out, "--out", out / "page.png").code == 0
    quiet = attribution("run", photos, "-t", "grad_cam", "--model", spec, "--out", out, "--quiet")
    assert (quiet.code, quiet.err) == (1, "")


def test_parameters_layers_targets_labels_and_lists(
    photos: Path, spec: str, out: Path, tmp_path: Path, attribution: Command
) -> None:
    (tmp_path / "list.csv").write_text("path,target\nphotos/0.png,cup\nphotos/2.png,1\n")
    words = ["run", tmp_path / "list.csv", "--model", spec, "-t", "grad_cam", "-t", "occlusion", "--layer", "body"]
    words += ["-p", "window=5", "-p", "occlusion.stride=5", "--precision", "bf16-mixed"]
    assert attribution(*words, "--out", out).code == 0
    for item, target in ((0, 2), (1, 1)):
        for answer in runs.open(out)[item].values():
            assert answer.target is not None
            assert answer.target.tolist() == [[target]]
    assert runs.open(out)[0]["occlusion"].technique == Occlusion(window=5, stride=5)
    assert runs.open(out)[0]["grad_cam"].computes_in == torch.bfloat16
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    words = ["run", photos, "--model", spec, "-t", "grad_cam", "--labels", tmp_path / "names.txt", "--target", "d"]
    assert attribution(*words, "--target", "b", "--out", tmp_path / "two").code == 0
    labels = [line["label"] for line in parquet.read_table(tmp_path / "two" / "scores.parquet").to_pylist()]
    assert labels == ["d", "b"] * 3


def test_refusals(photos: Path, spec: str, out: Path, tmp_path: Path, refused: Command) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.txt").write_text("")

    def no(*words: object, source: Path = photos) -> str:
        return str(refused("run", source, "--model", spec, "--out", out, *words))

    cases = [
        (no("-t", "grad_cam", source=tmp_path / "gone"), "no folder or list"),
        (no("-t", "grad_cam", source=tmp_path / "empty"), "has no file that ends in"),
        (refused("run", photos, "-t", "grad_cam", "--model", spec, "--out", photos), "is the folder of images"),
        (no("-t", "grad_cm"), "nearest: 'grad_cam"),
        (no("-t", "grad_cam", "-t", "grad_cam"), "given twice"),
        (no("-t", "filter_visualization", "--layer", "body", "-p", "channels=[0]"), "makes its own images"),
        (no("-t", "grad_cam", "-t", "layer_cam", "-p", "relu=true"), "say of which: -p grad_cam.relu=true"),
        (no("-t", "saliency", "--layer", "body"), "takes no layers"),
        (no("-t", "activations", "--layer", "body", "--target", "cup"), "explains no score"),
        (no("-t", "grad_cam", "--layer", "bodi"), "no layer 'bodi'"),
        (no("-t", "grad_cam", "--batch-size", "0"), "batch_size is 0"),
        (no("-t", "grad_cam", "--batch-size", "some"), "batch_size is 'some'"),
        (no("-t", "grad_cam", "--devices", "0"), "devices is 0"),
        (no("-t", "grad_cam", "--precision", "8"), "no precision '8'"),
        (no("-t", "grad_cam", "--labels", tmp_path / "gone"), "does not exist"),
        (no("-t", "grad_cam", "--labels", tmp_path / "none.txt"), "names no classes"),
        (no("-t", "grad_cam", "--target", "99"), "no class 99"),
        (refused("show", tmp_path / "empty"), "holds no run"),
    ]
    assert [said for said, expected in cases if expected not in said] == []
    assert not out.exists() or not (out / "run.json").exists()


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_with_its_code(
    photos: Path, spec: str, out: Path, attribution: Command, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    real = RunFolder.write

    def write(self: RunFolder, shard: int, *arguments: Any) -> None:
        if shard == 0:
            os.kill(os.getpid(), number)
        real(self, shard, *arguments)

    words = ["run", photos, "-t", "grad_cam", "--model", spec, "--out", out, "--batch-size", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write", write)
        done = attribution(*words)
    assert done.code == code, done
    left = 3 - len(list(RunFolder.read(out).present()))
    assert left in (1, 2)  # the next one may be under way when the signal comes
    assert f"{left} shard{'s' * (left > 1)} left: give the same command again" in done.out
    assert "stopping after the shard" in done.err
    assert attribution(*words).code == 0
    assert len(list(runs.open(out))) == 3


def test_a_run_is_exported(
    photos: Path, spec: str, out: Path, attribution: Command, refused: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, Any] = {}

    class Dataset(list[Any]):
        def __init__(self, name: str, **options: Any) -> None:
            super().__init__()
            self.name = name
            made[name] = self

        def add_samples(self, samples: list[Any], **options: Any) -> None:
            self.extend(samples)

    module = SimpleNamespace(Dataset=Dataset, Sample=dict, Heatmap=dict, dataset_exists=lambda name: name in made)
    monkeypatch.setitem(sys.modules, "fiftyone", module)
    assert attribution("run", photos, "-t", "grad_cam", "--model", spec, "--out", out).code == 0
    done = attribution("export", out, photos, "--to", "fiftyone", "--model", spec, "--name", "mine")
    assert done.code == 0, done
    assert done.out == "mine  3 samples · fiftyone app launch mine\n"
    for sample, (_, _, answer) in zip(made["mine"], runs.open(out), strict=True):
        assert np.array_equal(sample["grad_cam"]["map"], answer.map[0, 0].numpy())
        with Image.open(sample["filepath"]) as image:
            assert image.size == (23, 17)  # as the model saw it
    assert "already" in refused("export", out, photos, "--model", spec, "--name", "mine")
    assert "not those of the run" in refused("export", out, photos, "--model", spec, "--stretch")
    assert "--to 'zarr' is not known" in refused("export", out, photos, "--to", "zarr", "--model", spec)
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    assert "pip install fiftyone" in refused("export", out, photos, "--model", spec)
