"""``--labels``, ``--size``, ``--mean``, ``--std``, ``--batch-size``, ``--progress``, and what is told of a photo."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import attribution as core
from attribution import InputError, zoo
from attribution.images.files import read
from attribution.zoo.adapted import Cover, Renormalised, adapted

Command = Callable[..., Any]


def ramp(height: int, width: int) -> Image.Image:
    """Red grows to the right, green downwards."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width).round()
    pixels[..., 1] = np.linspace(0, 255, height).round()[:, None]
    return Image.fromarray(pixels)


def test_a_size_covers_and_cuts_the_middle(spec: str) -> None:
    loaded = adapted(zoo.load(spec), size=(10, 30), mean=(0.0,) * 3, std=(1.0,) * 3)
    seen = loaded.inputs(ramp(60, 90))[0]  # scaled to 20 × 30; rows 5 to 15 of 20 are left
    assert seen.shape == (3, 10, 30)
    assert seen[0, 0].tolist() == pytest.approx(np.linspace(0.5 / 30, 29.5 / 30, 30), abs=0.02)
    assert seen[1, :, 0].tolist() == pytest.approx((np.arange(5, 15) + 0.5) / 20, abs=0.02)
    assert torch.equal(adapted(loaded, size=(10, 30)).inputs(ramp(60, 90))[0], seen)


def test_mean_and_std_replace_the_normalisation_alone(spec: str) -> None:
    loaded, mean, std = zoo.load(spec), (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    other = adapted(loaded, mean=mean, std=std)
    plain = loaded.picture(loaded.inputs(ramp(40, 60)))
    expected = (torch.from_numpy(plain) - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(other.inputs(ramp(40, 60)), expected.movedim(-1, 1), rtol=0, atol=1e-5)
    np.testing.assert_allclose(other.picture(other.inputs(ramp(40, 60))), plain, atol=1e-6)
    assert adapted(loaded, mean=loaded.mean).transform is loaded.transform


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": (0.5, 0.5)}, "mean has 2 numbers; expected 3"),
        ({"std": (1.0, 0.0, 1.0)}, "above 0"),
        ({"mean": (0.0, float("nan"), 0.0)}, "finite"),
        ({"size": (0, 5)}, "expected 1 to 16384"),
        ({"size": (224, 10**6)}, "expected 1 to 16384"),
        ({"mean": (0.5,), "std": (0.5,)}, "give a size as well"),
    ],
)
def test_what_cannot_be(change: dict[str, Any], words: str, spec: str) -> None:
    with pytest.raises(InputError, match=words):
        adapted(zoo.load(spec), **change)


def test_grey_photos_by_a_size(spec: str) -> None:
    loaded = adapted(zoo.load(spec), size=(5, 7), mean=(0.5,), std=(0.5,))
    assert loaded.inputs(ramp(50, 70)).shape == (1, 1, 5, 7)


def test_transforms_are_told_apart_by_what_they_print() -> None:
    a, b = Cover((2, 3), (0.5,), (0.5,)), Cover((3, 2), (0.5,), (0.5,))
    assert repr(a) != repr(b)
    assert " at 0x" not in repr(a)
    assert repr(Renormalised(a, ((0.5,), (0.5,)), ((0.4,), (0.5,)))).count("0.4") == 1


def test_the_options_reach_the_model(spec: str, photo: Path, out: Path, tmp_path: Path, attribution: Command) -> None:
    names = tmp_path / "names.json"
    names.write_text(json.dumps({str(k): f"thing {k}" for k in range(5)}))
    done = attribution(
        *("explain", photo, "-m", spec, "-o", out, "-t", "occlusion", "-p", "window=5", "-p", "stride=3"),
        *("--size", "17x23", "--mean", "0.1,0.2,0.3", "--std", "0.5", "--labels", names, "--target", "thing 2"),
        *("--batch-size", "4", "--no-progress"),
    )
    assert (done.code, done.err) == (0, "")
    loaded = adapted(zoo.load(spec), size=(17, 23), mean=(0.1, 0.2, 0.3), std=(0.5,) * 3)
    expected = core.explain(loaded.model, loaded.inputs(read(photo)), core.Occlusion(window=5, stride=3), target=2)
    found = core.load(out / "photo.occlusion.safetensors")
    torch.testing.assert_close(found.map, expected.map, rtol=1e-5, atol=1e-6)
    assert "thing 2 (2)" in done.out
    own = core.explain(loaded.model, zoo.load(spec).inputs(read(photo)), core.Occlusion(window=5, stride=3), target=2)
    assert not torch.allclose(found.map, own.map, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "wide"], "expected pixels such as 224"),
        (["--size", "0"], "a size of 0 × 0"),
        (["--mean", "a,b"], "expected numbers such as"),
        (["--mean", "0.5,0.5"], "mean has 2 numbers"),
        (["--std", "-1"], "above 0"),
        (["--labels", "nowhere.txt"], "--labels takes a file"),
        (["--labels", "{photo}"], "cannot be read"),
    ],
)
def test_what_cannot_be_read(options: list[str], words: str, spec: str, photo: Path, refused: Command) -> None:
    assert words in refused("explain", photo, "-m", spec, *(each.format(photo=photo) for each in options))


def test_what_a_crop_leaves_out_is_told_once(
    spec: str, tmp_path: Path, out: Path, painted: Callable[..., Path], attribution: Command
) -> None:
    photos = [painted(tmp_path / f"{k}.png", seed=k) for k in range(3)]  # 40 × 60
    done = attribution("explain", *photos, "-m", spec, "-o", out, "--size", "20x20", "--no-progress")
    assert done.code == 0
    told = [line for line in done.err.splitlines() if line.startswith("note: ")]
    assert len(told) == 1
    assert f"of {photos[0]} the model sees 68% of the width and 100% of the height" in told[0]
    assert "of 2 other photos less than all; --stretch shows whole photos" in told[0]
    assert attribution("explain", photos[0], "-m", spec, "-o", out, "--size", "20x20", "--stretch").err == ""


def test_what_is_assumed_of_a_bare_network_is_told(
    tmp_path: Path, photo: Path, out: Path, attribution: Command
) -> None:
    (tmp_path / "bare.py").write_text(
        "from attribution.testing import small_cnn\n\ndef make():\n    return small_cnn()\n"
    )
    spec = f"{tmp_path / 'bare.py'}:make"
    done = attribution("explain", photo, "-m", spec, "-o", out, "--target", "1", "--stretch")
    assert done.code == 0
    assert "returned a bare network; assumed: the shorter side scaled to 256, the middle 224 × 224" in done.err
    told = ("--size", "20x24", "--mean", "0.5", "--std", "0.5")
    assert attribution("explain", photo, "-m", spec, "-o", out, "--target", "1", *told, "--stretch").err == ""


def test_a_parameter_that_stands_alone_is_no_image(spec: str, photo: Path, refused: Command) -> None:
    told = refused("explain", photo, "-m", spec, "-t", "occlusion", "-p", "window=5", "stride=3")
    assert "each takes its own -p: -p stride=3" in told
    assert "no file" in refused("explain", photo, "-m", spec, "-t", "grad_cam", "colour=3.png")


def test_titles_name_the_network() -> None:
    def called(name: str) -> str:
        model = torch.nn.Identity()
        return zoo.LoadedModel(name, model, lambda photo: torch.zeros(3, 2, 2), (0.5,), (0.5,), None).title

    assert called("bundled:squeezenet1_1") == "SqueezeNet 1.1"
    assert called("torchvision:resnet18") == "resnet18"
    assert called("mine.py:make") == called("") == "Identity"
