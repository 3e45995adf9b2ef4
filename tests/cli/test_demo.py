"""The demo, on real weights."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import attribution as core
from attribution import Activations, FilterVisualization, GradCAM, Occlusion, Technique, images, zoo
from attribution.cli import demo
from tests.report.reading import read

PICTURES = ("activations.png", "filter_visualization.png", "gradcam.png", "input_image.png", "occlusion.png")
EARLY, MIDDLE = "features.3.expand3x3", "features.7.expand3x3"


def smaller(technique: Technique) -> Technique:
    """The same question with less work."""
    if isinstance(technique, FilterVisualization):
        return replace(technique, steps=2, size=48)
    return replace(technique, window=112, stride=112) if isinstance(technique, Occlusion) else technique


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = demo.techniques
    monkeypatch.setattr(demo, "techniques", lambda model, inputs: [smaller(t) for t in whole(model, inputs)])


@pytest.fixture(scope="module")
def squeezenet() -> zoo.LoadedModel:
    return zoo.load("bundled:squeezenet1_1")


def test_the_questions_are_the_defaults_of_all_four(squeezenet: zoo.LoadedModel) -> None:
    inputs = squeezenet.inputs(zoo.sample_photo())
    filters = [FilterVisualization(layer=layer, channels=(0, 4, 8, 12)) for layer in (EARLY, MIDDLE)]
    assert demo.techniques(squeezenet.model, inputs) == [Activations(), *filters, GradCAM(), Occlusion()]
    assert (Occlusion().window, Occlusion().stride) == (40, 20)


def test_vgg16_gets_the_first_convolution_of_its_second_block_and_one_of_its_third() -> None:
    from torchvision.models import vgg16

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = vgg16(init_weights=False).features.eval()
    found = demo.techniques(model, torch.empty(1, 3, 224, 224, device="meta"))
    layers = [technique.layer for technique in found if isinstance(technique, FilterVisualization)]
    assert layers == ["5", "14"]  # conv2_1 and conv3_3


@pytest.mark.usefixtures("_quick")
def test_both_backends_show_the_same_espresso(
    attribution: Callable[..., Any], tmp_path: Path, squeezenet: zoo.LoadedModel
) -> None:
    answers = {}
    for backend in ("hooks", "captum"):
        out = tmp_path / backend
        done = attribution("demo", "--backend", backend, "--out", out)
        assert done.code == 0
        told = "note: of the photo the model sees 59% of the width and 88% of the height"
        assert done.err == f"{told}; --stretch shows the whole photo\n"
        lines = done.out.splitlines()
        assert lines[0] == "bundled:squeezenet1_1 sees:"
        assert lines[1].split() == ["96.6%", "espresso", "(967)"]
        filters = [f"filter_visualization.{layer}" for layer in (EARLY, MIDDLE)]
        maps = [f"{name}.safetensors" for name in ("activations", *filters, "gradcam", "occlusion")]
        assert sorted(os.listdir(out)) == sorted([*PICTURES, *maps, "report.html"])
        assert len(lines) == 1 + 5 + len(os.listdir(out))
        assert f"{out / 'occlusion.png'}  espresso (967) 0.966 · {backend}" in lines
        assert f"{out / 'filter_visualization.png'}  {EARLY}, {MIDDLE} · {backend}" in lines
        assert any("gradcam.png  features.12 · espresso (967)" in line for line in lines)
        page = out / "report.html"
        assert page.stat().st_size < 3_000_000
        root = read(page.read_text(encoding="utf-8"))
        assert root.one("table", class_="top").one("tbody").one("th").text == "espresso"
        layers = {each.one("strong").text for each in root.one("section", class_="channels").all("figcaption")}
        assert layers == {"features.2", "features.5", "features.8"}
        verdicts = [row.all("td")[-1].text for row in root.one("section", class_="agreement").one("tbody").all("tr")]
        assert set(verdicts) == {"agrees"}
        assert len(verdicts) == 3 + 1 + 1  # layers of activations, Grad-CAM, occlusion
        assert root.one("code", id="command").text.endswith(f"--backend {backend} --device auto --out {out}")
        for name in PICTURES:
            with Image.open(out / name) as file:
                assert np.asarray(file.convert("RGB"), dtype=float).std() > 10
        seen = images.read(out / "input_image.png")
        picture = squeezenet.picture(squeezenet.inputs(zoo.sample_photo()))[0]
        assert np.abs(np.asarray(seen) / 255 - picture).max() <= 0.5 / 255 + 1e-6
        answers[backend] = {name: core.load(out / name) for name in maps}
    for name, hooks in answers["hooks"].items():
        captum = answers["captum"][name]
        assert (hooks.technique, hooks.backend, captum.backend) == (captum.technique, "hooks", "captum")
        for layer, map in hooks.maps.items():
            assert map.abs().max() > 0
            torch.testing.assert_close(captum.maps[layer], map, rtol=0, atol=1e-4 * float(map.abs().max()))
            assert not torch.allclose(captum.maps[layer], map.flip(-1), rtol=0, atol=1e-4 * float(map.abs().max()))


def test_a_photo_and_a_model_of_ones_own(
    attribution: Callable[..., Any], spec: str, photo: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        demo,
        "techniques",
        lambda model, inputs: [
            Activations(),
            FilterVisualization(layer="body", channels=(0,), steps=1, size=17),
            GradCAM(),
            Occlusion(window=5, stride=5),
        ],
    )
    done = attribution("demo", "--image", photo, "--model", spec, "--out", out)
    assert (done.code, done.err) == (0, "")
    assert set(PICTURES) < set(os.listdir(out))
    assert len([line for line in done.out.splitlines() if "%" in line]) == 5


class _Dense(torch.nn.Module):
    """Classes without a convolution, so that two of the four techniques have nothing to show."""

    def __init__(self) -> None:
        super().__init__()
        self.rest = torch.nn.Linear(3 * 17 * 23, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.rest(x.flatten(1))
        return logits


def test_what_fails_is_left_out(
    attribution: Callable[..., Any], spec: str, photo: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        demo, "techniques", lambda model, inputs: [Activations(), GradCAM(), Occlusion(window=5, stride=5)]
    )
    load = zoo.load
    monkeypatch.setattr(
        zoo, "load", lambda spec, weights=None: replace(load(spec, weights=weights), model=_Dense().eval())
    )
    done = attribution("demo", "--image", photo, "--model", spec, "--out", out)
    assert done.code == 1
    told = done.err.splitlines()
    assert told[0] == "left out: filter_visualization: _Dense has no convolution wider than a pixel"
    assert any(line.startswith("left out: grad_cam: ") for line in told)
    assert "occlusion.png" in os.listdir(out)
    assert "gradcam.png" not in os.listdir(out)
    assert "filter_visualization.png" not in os.listdir(out)
