"""Runs as data sets of FiftyOne, held to a stand-in that takes what FiftyOne 1.22 takes and no more."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from attribution import Activations, GradCAM, Saliency, runs
from attribution.errors import InputError
from attribution.runs.folder import RunFolder
from attribution.testing import small_cnn
from tests.runs.data import painted, to_tensor


class Heatmap:
    """``map``, ``range`` and whatever else a label may have."""

    def __init__(self, *, map: Any, range: Any, **more: Any) -> None:
        assert map.ndim == 2
        assert len(range) == 2
        assert all(isinstance(each, float) for each in range)
        self.map, self.range, self.more = map, range, more


class Sample(dict[str, Any]):
    def __init__(self, filepath: str, **fields: Any) -> None:
        for name, value in fields.items():
            assert name.isidentifier()
            assert not name.startswith("_")
            assert isinstance(value, str | int | Heatmap)
        super().__init__(fields, filepath=filepath)


class Dataset:
    known: ClassVar[dict[str, "Dataset"]] = {}

    def __init__(self, name: str, *, persistent: bool, overwrite: bool) -> None:
        assert persistent
        if name in self.known and not overwrite:
            raise ValueError(f"Dataset {name} already exists")
        self.name, self.samples = name, list[Sample]()
        self.known[name] = self

    def __len__(self) -> int:
        return len(self.samples)

    def add_samples(self, samples: list[Sample], *, dynamic: bool, progress: bool) -> None:
        self.samples += samples

    def delete(self) -> None:
        del self.known[self.name]


@pytest.fixture
def fiftyone(monkeypatch: pytest.MonkeyPatch) -> dict[str, Dataset]:
    """The data sets that the stand-in knows."""
    module: Any = ModuleType("fiftyone")
    Dataset.known.clear()
    module.Heatmap, module.Sample, module.Dataset = Heatmap, Sample, Dataset
    module.dataset_exists = Dataset.known.__contains__
    monkeypatch.setitem(sys.modules, "fiftyone", module)
    return Dataset.known


TECHNIQUES = {
    "cam": GradCAM(layers=("stem", "body")),
    "signed-one": Saliency(absolute=False, channels="sum"),
    "tags": Saliency(),
    "seen": Activations(layers=("body",)),
}


def seen(inputs: Any) -> "np.ndarray[Any, Any]":
    """What the model saw: half of it, so that it is told from the photo."""
    found: np.ndarray[Any, Any] = inputs.movedim(1, -1).numpy() / 2
    return found


def a_run(root: Path, **options: Any) -> tuple[runs.OpenRun, runs.ImageFiles]:
    items = runs.of_folder(painted(root / "photos", 5, bad=(2,)), to_tensor)
    settled = {"techniques": TECHNIQUES, "batch_size": 2, "progress": False, **options}
    return runs.run(small_cnn(), items, settled.pop("techniques"), out=root / "run", **settled), items


def test_each_item_is_a_sample_with_its_maps(tmp_path: Path, fiftyone: dict[str, Dataset]) -> None:
    found, items = a_run(tmp_path, labels=list("abcde"))
    made = runs.to_fiftyone(found, items, seen)
    assert made is fiftyone["run"]
    assert [sample["name"] for sample in made.samples] == ["0000.png", "0001.png", "0003.png", "0004.png"]
    for sample in made.samples:
        number, answers = sample["item"], found[sample["item"]]
        assert sample.keys() == {
            *("filepath", "name", "item", "sha256", "cam_stem", "cam_body", "signed_one", "map_tags"),
        }
        assert sample["sha256"] == items[number].sha256
        with Image.open(sample["filepath"]) as image:
            expected = (items[number].inputs * 255 / 2).round().movedim(0, -1).numpy()
            assert np.array_equal(np.asarray(image), expected)
        for field, name, layer in (
            ("cam_stem", "cam", "stem"),
            ("cam_body", "cam", "body"),
            ("signed_one", "signed-one", "input"),
            ("map_tags", "tags", "input"),
        ):
            heatmap, answer = sample[field], answers[name]
            map_ = answer.technique.drawn(answer.maps)[0][layer][0, 0].numpy()
            assert np.array_equal(heatmap.map, map_)
            assert answer.target is not None
            assert answer.scores is not None
            target = int(answer.target)
            assert heatmap.more == {"target": target, "label": "abcde"[target], "score": float(answer.scores)}
            most = float(np.abs(map_).max())
            assert heatmap.range == ([-most, most] if field == "signed_one" else [0.0, most])
        assert sample["signed_one"].map.min() < 0


def test_a_map_of_zeros_has_a_range() -> None:
    from attribution.runs.fiftyone import _range

    zeros, ramp = torch.zeros(3, 5), torch.linspace(0.5, 3, 15).view(3, 5)
    assert _range(zeros, signed=True) == _range(zeros, signed=False) == [0.0, 1.0]
    assert _range(-ramp, signed=False) == [-3.0, 3.0]
    assert _range(ramp, signed=True) == [-3.0, 3.0]
    assert _range(ramp, signed=False) == [0.0, 3.0]
    assert _range(ramp, signed=False, zero=False) == [0.5, 3.0]
    assert _range(zeros, signed=False, zero=False) == [0.0, 1.0]


def test_what_is_refused_leaves_no_data_set(tmp_path: Path, fiftyone: dict[str, Dataset]) -> None:
    found, items = a_run(tmp_path)
    other = runs.of_folder(painted(tmp_path / "other", 4), to_tensor)
    with pytest.raises(InputError, match="not those of the run"):
        runs.to_fiftyone(found, other, seen)
    with pytest.raises(InputError, match="not those of the run"):
        runs.to_fiftyone(found, runs.of_folder(tmp_path / "photos", to_tensor, told="another transform"), seen)
    runs.to_fiftyone(found, items, seen, name="mine")
    with pytest.raises(InputError, match="has a data set 'mine' already"):
        runs.to_fiftyone(found, items, seen, name="mine")
    assert len(runs.to_fiftyone(found, items, seen, name="mine", overwrite=True)) == 4
    (tmp_path / "photos" / "0003.png").write_bytes((tmp_path / "other" / "0000.png").read_bytes())
    with pytest.raises(InputError, match=r"0003\.png is not what it was"):
        runs.to_fiftyone(found, items, seen)
    assert fiftyone.keys() == {"mine"}
    RunFolder.read(tmp_path / "run").path(0).unlink()
    RunFolder.read(tmp_path / "run").path(1).unlink()
    assert len(runs.to_fiftyone(found, items, seen, name="half")) == 1  # what is done
    RunFolder.read(tmp_path / "run").path(2).unlink()
    with pytest.raises(InputError, match="has no heatmaps of images"):
        runs.to_fiftyone(found, items, seen, name="none")
    assert fiftyone.keys() == {"mine", "half"}


def test_a_library_that_is_missing_or_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fiftyone: dict[str, Dataset]
) -> None:
    found, items = a_run(tmp_path, techniques=GradCAM(layers=("body",)))

    def fails(*arguments: Any, **options: Any) -> Any:
        raise OSError("MongoDB could not be installed\nand more")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["fiftyone"], "dataset_exists", fails)
        with pytest.raises(InputError, match=r"FiftyOne cannot be used: .*MongoDB could not be installed$"):
            runs.to_fiftyone(found, items, seen)
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(InputError, match="pip install fiftyone"):
        runs.to_fiftyone(found, items, seen)
