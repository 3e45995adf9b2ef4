"""Several techniques on the command line: whose a parameter is, which files there are, what the picture shows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attribution import GradCAM, IntegratedGradients, LayerCAM, Saliency, load
from attribution.cli import question
from attribution.errors import InputError, TargetError

Command = Callable[..., Any]
THREE = ("-t", "grad_cam", "-t", "layer_cam", "-t", "integrated_gradients")


def parsed(names: list[str], *settings: str, layers: tuple[str, ...] = (), targets: tuple[str, ...] = ()) -> Any:
    return question.parse(names, "hooks", [Path("photo.png")], layers, targets, settings).techniques


def test_parameters_find_their_technique() -> None:
    names = ["grad_cam", "layer_cam", "integrated_gradients"]
    found = parsed(names, "layer_cam.relu=false", "steps=7", "grad_cam.upsample=false", layers=("stem", "body"))
    assert found == {
        "grad_cam": GradCAM(layers=("stem", "body"), upsample=False),
        "layer_cam": LayerCAM(layers=("stem", "body"), relu=False),
        "integrated_gradients": IntegratedGradients(steps=7),
    }
    assert parsed(["grad_cam"], "relu=false") == parsed(["grad_cam"], "grad_cam.relu=false")
    assert parsed(["saliency", "activations"], targets=("3",))["saliency"] == Saliency()


def test_parameters_of_nobody_and_of_several_are_refused() -> None:
    both = ["grad_cam", "layer_cam"]
    with pytest.raises(InputError, match=r"-p relu may be of grad_cam or layer_cam; say of which: -p grad_cam\.relu="):
        parsed(both, "relu=false")
    with pytest.raises(InputError, match="no technique asked for has a parameter 'rely'; nearest: 'relu'"):
        parsed(both, "rely=false")
    with pytest.raises(InputError, match="layer_cam has no parameter 'rely'"):
        parsed(both, "layer_cam.rely=false")
    with pytest.raises(InputError, match=r"no technique asked for has a parameter 'hires_cam\.relu'"):
        parsed(both, "hires_cam.relu=false")
    with pytest.raises(InputError, match="--technique grad_cam is given twice"):
        parsed(["grad_cam", "grad_cam"])
    with pytest.raises(InputError, match="filter_visualization makes its own images; ask it alone"):
        parsed(["grad_cam", "filter_visualization"], "layer='body'", "filter_visualization.channels=[0]")
    with pytest.raises(TargetError, match="activations explain"):
        parsed(["activations"], targets=("3",))


def test_one_picture_and_a_file_for_each(attribution: Command, spec: str, photo: Path, out: Path) -> None:
    settings = ("-p", "layer_cam.relu=false", "-p", "steps=3", "-l", "body", "--target", "cup")
    done = attribution("explain", photo, "-m", spec, *THREE, *settings, "-o", out)
    assert (done.code, done.err) == (0, "")
    names = ["grad_cam", "integrated_gradients", "layer_cam"]
    files = [f"photo.{name}.safetensors" for name in names]
    assert sorted(path.name for path in out.iterdir()) == [*files, "photo.techniques.png"]
    assert f"{out / 'photo.techniques.png'}  grad_cam, layer_cam, integrated_gradients" in done.out
    answers = {name: load(out / f"photo.{name}.safetensors") for name in names}
    assert answers["layer_cam"].technique == LayerCAM(layers=("body",), relu=False)
    assert answers["integrated_gradients"].technique == IntegratedGradients(steps=3)
    assert answers["grad_cam"].provenance["pass"] == "shared by grad_cam, layer_cam"
    with Image.open(out / "photo.techniques.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    columns = (pixels.max(axis=2) - pixels.min(axis=2) > 40).any(axis=0)  # photo, and three maps in colours
    assert columns.mean() > 0.4
    alone = attribution(
        "explain", photo, "-m", spec, "-t", "grad_cam", "-l", "body", "--target", "cup", "-o", out / "a"
    )
    assert alone.code == 0
    assert load(out / "a" / "photo.grad_cam.safetensors").map.equal(answers["grad_cam"].map)


def test_what_is_no_heatmap_has_its_own_picture(attribution: Command, spec: str, photo: Path, out: Path) -> None:
    done = attribution("explain", photo, "-m", spec, "-t", "activations", "-t", "grad_cam", "-l", "body", "-o", out)
    assert done.code == 0
    pictures = sorted(path.name for path in out.glob("*.png"))
    assert pictures == ["photo.activations.png", "photo.grad_cam.png"]


def test_who_fails_is_named_and_nothing_is_written(refused: Command, spec: str, photo: Path, out: Path) -> None:
    said = refused("explain", photo, "-m", spec, *THREE, "-p", "relu=true", "-l", "body", "-o", out)
    assert "grad_cam or layer_cam" in said
    said = refused("explain", photo, "-m", spec, *THREE, "-p", "baseline=[1.0, 2.0]", "-l", "body", "-o", out)
    assert "baseline has 2 values" in said
    assert not out.exists()


def test_compare_asks_several(attribution: Command, spec: str, photo: Path, out: Path) -> None:
    done = attribution("compare", photo, "-m", spec, "-t", "grad_cam", "-t", "saliency", "-l", "body", "-o", out)
    assert done.code == 0
    told = done.out.splitlines()
    assert [line.split(":")[0] for line in told[-2:]] == ["grad_cam", "saliency"]
    assert all("captum, hooks: agree, largest" in line for line in told[-2:])
    assert sorted(path.name for path in out.iterdir()) == [
        "photo.grad_cam.captum-hooks.png",
        "photo.saliency.captum-hooks.png",
    ]
