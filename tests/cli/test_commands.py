"""What the commands print and write."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from typer.testing import CliRunner

import attribution as core
from attribution import Attributor, GradCAM, Inputs, Occlusion, Run, Technique, zoo
from attribution.cli import app
from attribution.images.files import read
from attribution.technique import Kind, Maps

Command = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Brightness(Technique):
    """A stranger's technique: the mean colour, times a factor."""

    name: ClassVar[str] = "brightness"
    kind: ClassVar[Kind] = "heatmap"
    needs_target: ClassVar[bool] = True

    factor: float = 1.0

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        return raw


class MineBrightness(Attributor[Brightness]):
    technique_type: ClassVar[type[Brightness]] = Brightness
    backend: ClassVar[str] = "mine"

    def compute(self, run: Run[Any]) -> Maps:
        scores = run.scores(run.forward(run.inputs))
        mean = run.inputs.tensor.mean(dim=1, keepdim=True) * run.technique.factor
        return {"input": mean.expand(-1, scores.shape[1], -1, -1)}


class ShiftedGradCAM(Attributor[GradCAM]):
    """Wrong on purpose."""

    technique_type: ClassVar[type[GradCAM]] = GradCAM
    backend: ClassVar[str] = "shifted"

    def compute(self, run: Run[Any]) -> Maps:
        right = core.explain(run.model, run.inputs, run.technique, target=run.asked)
        run.scores(run.forward(run.inputs))
        return {name: map.roll(1, dims=-1) for name, map in right.raw.items()}


def drawn(path: Path) -> bool:
    with Image.open(path) as file:
        return bool(np.asarray(file.convert("RGB"), dtype=float).std() > 10)


def test_explain_writes_the_maps_of_the_core(spec: str, photo: Path, out: Path, attribution: Command) -> None:
    done = attribution(
        *("explain", photo, "-t", "occlusion", "-b", "captum", "-m", spec, "-o", out, "--target", "Cup"),
        *("--target", "0", "-p", "window=[5, 7]", "-p", "stride=3"),
    )
    assert (done.code, done.err) == (0, "")
    loaded = zoo.load(spec)
    technique = Occlusion(window=(5, 7), stride=3)
    inputs = loaded.inputs(read(photo))
    expected = core.explain(loaded.model, inputs, technique, backend="captum", target=[[2, 0]])
    found = core.load(out / "photo.occlusion.safetensors")
    assert torch.equal(found.map, expected.map)
    assert (found.technique, found.backend) == (technique, "captum")
    assert found.target is not None
    assert found.target.tolist() == [[2, 0]]
    assert not torch.equal(found.map[:, :1], found.map[:, 1:])  # each target has a map of its own
    assert drawn(out / "photo.occlusion.png")
    assert sorted(os.listdir(out)) == ["photo.occlusion.png", "photo.occlusion.safetensors"]
    assert expected.scores is not None
    cup, teapot = expected.scores[0].tolist()
    for line in done.out.splitlines():
        assert line.endswith(f"cup (2) {cup:.3g}, teapot (0) {teapot:.3g} · captum")


def test_images_of_one_name_keep_their_own_results(
    spec: str, photo: Path, out: Path, attribution: Command, painted: Callable[..., Path]
) -> None:
    other = painted(photo.parent / "elsewhere" / "photo.jpg", seed=1)
    done = attribution("explain", photo, other, photo, "-m", spec, "-o", out, "-l", "body", "--target", "all")
    assert done.code == 0
    stems = ("photo", "photo-2")
    assert sorted(os.listdir(out)) == sorted(
        f"{stem}.grad_cam.{end}" for stem in stems for end in ("png", "safetensors")
    )
    loaded = zoo.load(spec)
    for path, stem in zip((photo, other), stems, strict=True):
        expected = core.explain(loaded.model, loaded.inputs(read(path)), GradCAM(layers=("body",)), target="all")
        assert torch.equal(core.load(out / f"{stem}.grad_cam.safetensors").map, expected.map)
    assert "and 2 more · hooks" in done.out


def test_a_technique_that_makes_its_own_images(spec: str, out: Path, attribution: Command) -> None:
    done = attribution(
        *("explain", "-t", "filter_visualization", "-m", spec, "-o", out, "-l", "body"),
        *("-p", "channels=[0, 2]", "-p", "steps=2", "-p", "size=[17, 23]"),
    )
    assert (done.code, done.err) == (0, "")
    assert sorted(os.listdir(out)) == ["filter_visualization.png", "filter_visualization.safetensors"]
    assert core.load(out / "filter_visualization.safetensors").map.shape == (2, 3, 17, 23)


def test_a_strangers_technique_works(
    spec: str, photo: Path, out: Path, attribution: Command, registered: Callable[..., object]
) -> None:
    registered(MineBrightness)
    options = ("-m", spec, "-o", out, "-t", "brightness", "-b", "mine")
    assert attribution("explain", photo, *options, "-p", "factor=-2").code == 0
    loaded = zoo.load(spec)
    expected = loaded.inputs(read(photo)).mean(dim=1, keepdim=True) * -2
    assert torch.equal(core.load(out / "photo.brightness.safetensors").map, expected)
    listed = [line.split() for line in attribution("list").out.splitlines()]
    assert ["brightness", "mine", "registered", "at", "run", "time"] in listed


def test_a_map_that_is_zero_everywhere_is_told(
    spec: str, photo: Path, out: Path, attribution: Command, registered: Callable[..., object]
) -> None:
    registered(MineBrightness)
    options = ("-m", spec, "-o", out, "-t", "brightness", "-b", "mine", "--target", "1", "--target", "0")
    done = attribution("explain", photo, *options, "-p", "factor=0")
    assert done.code == 0
    path = out / "photo.brightness.safetensors"
    told = "input · target 1, input · target 0"
    assert done.err.strip() == f"note: {path}: the map is zero everywhere: {told}"
    assert attribution("explain", photo, *options).err == ""


def test_stretching_shows_the_whole_photo(photo: Path, out: Path, attribution: Command) -> None:
    assert attribution("explain", photo, "-o", out / "cropped").code == 0
    assert attribution("explain", photo, "-o", out / "stretched", "--stretch").code == 0
    loaded = zoo.load("bundled:squeezenet1_1")
    for name, stretch in (("cropped", False), ("stretched", True)):
        expected = core.explain(loaded.model, loaded.inputs(read(photo), stretch=stretch), GradCAM())
        assert torch.equal(core.load(out / name / "photo.grad_cam.safetensors").map, expected.map)


def test_compare_prints_a_verdict_and_draws_the_difference(
    spec: str, photo: Path, out: Path, attribution: Command
) -> None:
    done = attribution("compare", photo, "-t", "occlusion", "-m", spec, "-o", out, "-p", "window=5", "-p", "stride=3")
    assert (done.code, done.err) == (0, "")
    assert "input · image 0 · target" in done.out
    assert "agrees" in done.out
    assert "captum, hooks: agree, largest scaled difference " in done.out
    assert os.listdir(out) == ["photo.occlusion.captum-hooks.png"]
    assert drawn(out / "photo.occlusion.captum-hooks.png")


def test_compare_ends_with_1_when_a_backend_is_wrong(
    spec: str, photo: Path, out: Path, attribution: Command, registered: Callable[..., object]
) -> None:
    registered(ShiftedGradCAM)
    done = attribution("compare", photo, "-m", spec, "-o", out, "-l", "body")
    assert done.code == 1
    assert "captum, hooks, shifted: DISAGREE" in done.out
    assert "DIFFERS" in done.out
    pairs = ("captum-hooks", "captum-shifted", "hooks-shifted")
    assert sorted(os.listdir(out)) == [f"photo.grad_cam.{pair}.png" for pair in pairs]


def test_compare_needs_two_backends(
    photo: Path, refused: Callable[..., str], registered: Callable[..., object]
) -> None:
    registered(MineBrightness)
    assert "brightness has one backend, mine" in refused("compare", photo, "-t", "brightness")


def test_layers_are_listed_with_type_and_shape(spec: str) -> None:
    done = CliRunner().invoke(app, ["layers", "--model", spec])
    assert done.exit_code == 0
    rows = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert rows[:3] == [
        ["layer", "type", "output"],
        ["stem", "Conv2d", "6 × 17 × 23"],
        ["stem_relu", "ReLU", "6 × 17 × 23"],
    ]
    assert ["body", "Conv2d", "8 × 6 × 9"] in rows
    assert ["head.2", "Linear", "5"] in rows


def test_a_layer_that_runs_twice_says_so(tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text(
        "from collections import OrderedDict\nfrom torch import nn\n\n"
        "def make():\n"
        "    relu = nn.ReLU()\n"
        "    return Twice(relu)\n\n"
        "class Twice(nn.Module):\n"
        "    def __init__(self, relu):\n"
        "        super().__init__()\n"
        "        self.relu = relu\n\n"
        "    def forward(self, x):\n"
        "        return self.relu(self.relu(x)).mean((2, 3))\n"
    )
    done = CliRunner().invoke(app, ["layers", "--model", f"{tmp_path / 'twice.py'}:make"])
    assert "3 × 224 × 224  (runs 2 times: relu#0 … relu#1)" in done.stdout


def test_help_is_there_without_a_command(attribution: Command) -> None:
    done = attribution()
    assert done.code == 0
    assert all(name in done.out for name in ("demo", "explain", "compare", "list", "layers"))


def test_a_process_of_its_own_lists_what_is_installed() -> None:
    command = [sys.executable, "-m", "attribution", "list"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    rows = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    own = f"torch-attribution {version('torch-attribution')}"
    names = ("activations", "filter_visualization", "grad_cam", "occlusion")
    assert rows[0] == ["technique", "backend", "distribution"]
    assert all([name, backend, own] in rows for name in names for backend in ("captum", "hooks"))
