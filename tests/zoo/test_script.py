import sys
from pathlib import Path

import pytest
import torch

from attribution import zoo
from attribution.errors import ModelError

SOURCE = """
from __future__ import annotations
import dataclasses
import torch
from torch import nn
from helper_beside_the_model import classes
from attribution.zoo import LoadedModel

@dataclasses.dataclass
class Options:
    classes: int = classes

def small():
    return nn.Sequential(nn.Conv2d(3, Options().classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).train()

def thousand():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000))

def whole():
    return LoadedModel("mine", small(), lambda photo: torch.zeros(3, 5, 7), (0.0,) * 3, (1.0,) * 3, ("a", "b"))

def grey():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

class Sized(nn.Linear):
    def __init__(self, width, classes, bias=True):
        super().__init__(width, classes, bias)

def broken():
    raise ValueError("no weights on this disk\\nsecond line")

def nothing():
    return 3

not_a_function = 4
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.py"
    path.write_text(SOURCE)
    (tmp_path / "helper_beside_the_model.py").write_text("classes = 2\n")
    return path


def test_a_bare_module_gets_the_usual_transform(file: Path) -> None:
    path = list(sys.path)
    loaded = zoo.load(f"{file}:small")
    assert sys.path == path
    assert loaded.name == f"{file}:small"
    assert not loaded.model.training
    assert loaded.labels is None
    assert (loaded.mean, loaded.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert loaded.inputs(zoo.sample_photo()).shape == (1, 3, 224, 224)
    assert loaded.label(1) == "class 1"


def test_a_thousand_classes_are_imagenets(file: Path) -> None:
    assert zoo.load(f"{file}:thousand").label(967) == "espresso"


def test_a_network_that_takes_grey_is_shown_grey(file: Path) -> None:
    loaded = zoo.load(f"{file}:grey")
    photo = zoo.sample_photo()
    inputs = loaded.inputs(photo)
    assert inputs.shape == (1, 1, 224, 224)
    assert loaded.model(inputs).shape == (1, 4)
    assert "photos in grey, " in loaded.assumed
    assert (loaded.mean, loaded.std) == ((0.449,), (0.226,))
    assert torch.equal(inputs, loaded.inputs(photo.convert("L")))
    usual = zoo.load(f"{file}:small").inputs(photo.convert("L"))[:, :1]  # of ImageNet's first channel
    assert torch.allclose(inputs * 0.226 + 0.449, usual * 0.229 + 0.485, atol=1e-6)
    other = zoo.adapted(loaded, size=(20, 30), mean=(0.5,), std=(0.25,))
    assert other.inputs(photo).shape == (1, 1, 20, 30)


def test_a_loaded_model_keeps_what_it_says(file: Path) -> None:
    loaded = zoo.load(f"{file}:whole")
    assert loaded.name == f"{file}:whole"
    assert loaded.labels == ("a", "b")
    assert loaded.inputs(zoo.sample_photo()).shape == (1, 3, 5, 7)
    assert not loaded.model.training


def test_weights_from_a_file(file: Path, tmp_path: Path) -> None:
    weight = torch.arange(6.0).view(2, 3, 1, 1)
    torch.save({"0.weight": weight, "0.bias": torch.ones(2)}, tmp_path / "a.pth")
    for function in ("small", "whole"):
        loaded = zoo.load(f"{file}:{function}", weights=tmp_path / "a.pth")
        assert torch.equal(loaded.model.get_parameter("0.weight"), weight)


def test_two_files_of_one_name_do_not_replace_each_other(tmp_path: Path) -> None:
    models = []
    for folder in ("a", "b"):
        path = tmp_path / folder / "model.py"
        path.parent.mkdir()
        path.write_text("from torch import nn\nclass Net(nn.Linear): pass\ndef make(): return Net(1, 9)\n")
        models.append(zoo.load(f"{path}:make").model)
    first, second = (type(model) for model in models)
    assert first is not second
    assert sys.modules[first.__module__].Net is first
    assert sys.modules[second.__module__].Net is second


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("smal", r"model\.py has no function 'smal'; nearest: 'small'"),
        ("not_a_function", r"has no function 'not_a_function'"),
        ("broken", r"model\.py:broken\(\) fails: ValueError: no weights on this disk$"),
        ("Sized", r"model\.py:Sized needs width, classes; .* such as .*: return Sized\(width=…, classes=…\)$"),
        ("nothing", r"model\.py:nothing returned int; expected nn\.Module or LoadedModel"),
    ],
)
def test_functions_that_make_no_model(file: Path, function: str, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        zoo.load(f"{file}:{function}")


def test_files_that_cannot_be_run(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no file .*gone\.py"):
        zoo.load(f"{tmp_path}/gone.py:make")
    (tmp_path / "bad.py").write_text("import a_package_that_is_not_there\n")
    modules = set(sys.modules)
    with pytest.raises(ModelError, match=r"bad\.py fails: ModuleNotFoundError: No module named"):
        zoo.load(f"{tmp_path}/bad.py:make")
    assert set(sys.modules) == modules
    (tmp_path / "bad.py").write_text("def make(:\n")
    with pytest.raises(ModelError, match=r"bad\.py fails: SyntaxError"):
        zoo.load(f"{tmp_path}/bad.py:make")


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("vgg16", "no model 'vgg16'; did you mean 'torchvision:vgg16'"),
        ("SqueezeNet1_1", "did you mean 'bundled:squeezenet1_1' or 'torchvision:squeezenet1_1'"),
        ("torchvison:vgg16", "nearest: 'torchvision:vgg16'"),
        ("model.py", r"name the function that makes the model, as in model\.py:make_model"),
        ("mine.pth", "name the architecture and pass the file with --weights"),
        ("", r"a model is written bundled:squeezenet1_1, .* or FILE\.py:FUNCTION"),
    ],
)
def test_specs_that_are_not_understood(spec: str, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        zoo.load(spec)
