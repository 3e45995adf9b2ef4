"""What is wrong on the face of it is refused before torch is imported."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image

from attribution import InputError, ModelError, UnknownAttributorError, registry
from attribution.cli import early, early_models, known
from tests.cases import TECHNIQUES

PROGRAM = """
import sys
from attribution.cli import main
code = main(sys.argv[1:])
print(code, "torch" in sys.modules)
"""


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize("name", TECHNIQUES)
def test_parameters_are_known_without_an_import(name: str) -> None:
    kind = registry.technique(name)
    assert sorted(early._parameters(name) or []) == sorted(field.name for field in fields(kind) if field.init)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explain", "missing.jpg"], "no file missing.jpg"),
        (["compare", "missing.jpg"], "no file missing.jpg"),
        (["explain", "{photo}", "-t", "gradcam"], "no technique 'gradcam'; nearest: 'grad_cam'"),
        (["explain", "{photo}", "-t", "occlusion", "-p", "windw=3"], "no parameter 'windw'; nearest: 'window'"),
        (["explain", "{photo}", "-t", "occlusion", "-p", "window=[1,"], "not a TOML value"),
        (["explain", "{photo}", "-t", "grad_cam", "-t", "layer_cam", "-p", "relu=false"], "may be of grad_cam or"),
        (["explain", "{photo}", "--weights", "missing.pth"], "missing.pth does not exist"),
        (["explain", "{photo}", "--model", "missing.py:make"], "no file missing.py"),
        (["explain", "{photo}", "--model", "net.pth"], "that is a weights file"),
        (["demo", "--image", "missing.jpg"], "no file missing.jpg"),
        (["run", "{photo}", "-t", "gradcam", "--out", "x"], "no technique 'gradcam'"),
        (["evaluate", "-t", "gradcam"], "no technique 'gradcam'"),
        (["explain"], "grad_cam needs an image; give the path of one"),
        (["explain", "."], ". is a folder; give images, or take `attribution run`"),
        (["explain", "-"], "no file -; standard input is not read"),
        (["explain", "https://example.org/a.jpg"], "addresses are not fetched: download the image"),
        (["explain", "{photo}", "-t", "grad_cam,occlusion"], "each takes its own -t: -t grad_cam -t occlusion"),
        (["explain", "{photo}", "-b", "captm"], "no backend 'captm' of grad_cam; nearest: 'captum'"),
        (["explain", "{photo}", "--device", "gpu"], "no device 'gpu'; give cpu, cuda or auto"),
        (["explain", "{photo}", "-l", "features.99"], "no layer 'features.99' in bundled:squeezenet1_1; nearest: "),
        (["explain", "{photo}", "-l", "features..9", "-m", "timm:x"], "layer 'features..9' has an empty step"),
        (["report", "{photo}", "-l", "conv1#x", "-m", "timm:x"], "layer 'conv1#x' is not a name"),
        (["run", ".", "-t", "grad_cam", "-o", "x", "-l", "top"], "no layer 'top' in bundled:squeezenet1_1"),
        (["explain", "{photo}", "-m", "resnet18"], "did you mean 'torchvision:resnet18'? A model is written"),
        (["layers", "-m", "torchvision:resnet81"], "nearest: 'torchvision:resnet18'"),
        (["atlas", "-l", "x", "-m", "bundled:vgg"], "no model 'bundled:vgg'"),
        (["run", "{photo}", "-t", "grad_cam", "-o", "x"], "is a file and no list; give the folder of the images"),
        (["evaluate", "missing"], "no folder or list 'missing'; give a folder of images"),
        (["show", "missing"], "the folder missing does not exist, and holds no run; give what --out"),
    ],
)
def test_a_mistake_costs_no_import(arguments: list[str], words: str, photo: Path) -> None:
    given = [argument.format(photo=photo) for argument in arguments]
    found = subprocess.run([sys.executable, "-c", PROGRAM, *given], capture_output=True, text=True, check=True)
    assert words in found.stderr
    assert found.stdout.split() == ["2", "False"]


def test_models_and_layers_are_known_without_an_import() -> None:
    from torchvision import models

    from attribution.zoo import bundled

    assert [*early_models.BUNDLED] == [*bundled.BUNDLED]
    assert sorted(early_models.torchvision_names()) == sorted(models.list_models(module=models))
    network = models.squeezenet1_1()
    assert [*early_models.default_layers()] == [name for name, _ in network.named_modules() if name]
    for spec in ("torchvision:resnet18", "timm:anything", "bundled:efficientnet_lite0"):
        early_models.refuse(spec)
    for layer in ("features.12", "features.3.expand1x1#0", "classifier:in", "features[0]", "module.features.12"):
        early_models.refuse_layers("bundled:squeezenet1_1", [layer])
    early_models.refuse_layers("torchvision:vgg16", ["whatever.it.is called"])


def test_a_shell_is_told_what_begins_so() -> None:
    assert "grad_cam" in known.known_techniques("grad_")
    assert all(name.startswith("grad_") for name in known.known_techniques("grad_"))
    assert known.known_backends("cap") == ["captum"]
    assert known.known_models("bundled:s") == ["bundled:squeezenet1_1"]


def test_what_is_right_passes(photo: Path) -> None:
    early.refuse(
        techniques=["occlusion", "grad_cam"],
        settings=["window=3", "grad_cam.relu=false"],
        images=[photo],
        model="bundled:squeezenet1_1",
        weights=photo,
    )
    early.refuse(techniques=["filter_visualization"], settings=["layer='x'", "steps=3"], model="torchvision:resnet18")
    with pytest.raises(InputError, match="no parameter 'relu'"):
        early.refuse(techniques=["occlusion"], settings=["relu=false"])
    with pytest.raises(UnknownAttributorError, match="nearest: 'occlusion'"):
        early.refuse(techniques=["oclusion"])
    with pytest.raises(ModelError, match="name the function"):
        early.refuse(model="net.py")
