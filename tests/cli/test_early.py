"""What is wrong on the face of it is refused before torch is imported."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image

from attribution import InputError, ModelError, UnknownAttributorError, registry
from attribution.cli import early
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
    ],
)
def test_a_mistake_costs_no_import(arguments: list[str], words: str, photo: Path) -> None:
    given = [argument.format(photo=photo) for argument in arguments]
    found = subprocess.run([sys.executable, "-c", PROGRAM, *given], capture_output=True, text=True, check=True)
    assert words in found.stderr
    assert found.stdout.split() == ["2", "False"]


def test_what_is_right_passes(photo: Path) -> None:
    early.refuse(
        techniques=["occlusion", "grad_cam"],
        settings=["window=3", "grad_cam.relu=false"],
        images=[photo],
        model="bundled:squeezenet1_1",
        weights=photo,
    )
    early.refuse(techniques=["filter_visualization"], settings=["layer='x'", "steps=3"], model="resnet18")
    with pytest.raises(InputError, match="no parameter 'relu'"):
        early.refuse(techniques=["occlusion"], settings=["relu=false"])
    with pytest.raises(UnknownAttributorError, match="nearest: 'occlusion'"):
        early.refuse(techniques=["oclusion"])
    with pytest.raises(ModelError, match="name the function"):
        early.refuse(model="net.py")
