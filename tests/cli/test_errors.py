"""Mistakes of a user end with code 2 and a plain line or two, before any work."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from attribution import api, comparison

Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def _no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is computed before the mistake is found."""

    def explain(*arguments: object, **options: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr(api, "explain", explain)
    monkeypatch.setattr(comparison, "compare", explain)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explain", "{photo}", "--technique", "gradcam"], "nearest: 'grad_cam.hooks'"),
        (["explain", "{photo}", "--backend", "captm"], "nearest: 'grad_cam.captum'"),
        (["compare", "{photo}", "--technique", "oclusion"], "no attributor oclusion.hooks"),
        (["demo", "--backend", "captm"], "no attributor activations.captm"),
        (["explain", "{photo}", "-t", "occlusion", "-p", "windw=3"], "nearest: 'window'"),
        (["explain", "{photo}", "-t", "occlusion", "-p", "window=[1,"], "not a TOML value"),
        (["explain", "{photo}", "-t", "occlusion", "-p", 'window="a"'], "expected int | tuple[int, ...]"),
        (["explain", "{photo}", "-t", "occlusion", "-p", "window=18", "-p", "stride=9"], "larger than the image"),
        (["explain", "{photo}", "-t", "activations", "--target", "cup"], "explains no score"),
        (["explain"], "grad_cam needs an image"),
        (["explain", "{photo}", "-t", "filter_visualization", "-l", "stem", "-p", "channels=[0]"], "leave"),
        (["explain", "-t", "filter_visualization"], "needs --layer NAME"),
        (["explain", "{photo}", "--layer", "stm"], "nearest: 'stem'"),
        (["explain", "{photo}", "--target", "expresso"], "nearest: 'espresso'"),
        (["explain", "{photo}", "--target", "5"], "classes 0 to 4"),
        (["explain", "{photo}", "--target", "-1"], "classes are counted from 0 to 4"),
        (["explain", "{photo}", "--target", "all", "--target", "cup"], "leave the other targets out"),
        (["explain", "{photo}", "--out", "{photo}"], "choose another --out"),
        (["explain", "{photo}", "--out", "{photo}/below"], "choose another --out"),
        (["explain", "{photo}", "--device", "tpu"], "give cpu, cuda or auto"),
        (["explain", "{photo}", "--weights", "missing.pth"], "missing.pth does not exist"),
        (["explain", "missing.jpg"], "no file missing.jpg"),
        (["explain", "{photo}", "{junk}"], "is no image of a known format"),
        (["demo", "--image", "missing.jpg"], "no file missing.jpg"),
        (["compare"], "grad_cam needs an image"),
    ],
)
def test_a_mistake_is_told_in_plain_words(
    arguments: list[str], words: str, spec: str, photo: Path, out: Path, refused: Refused
) -> None:
    junk = photo.with_name("junk.jpg")
    junk.write_text("no picture")
    given = [argument.format(photo=photo, junk=junk) for argument in arguments]
    given += ["--model", spec] + ([] if "--out" in given else ["--out", str(out)])
    assert words in refused(*given)
    assert {*os.listdir(photo.parent)} - {"__pycache__"} == {"junk.jpg", "model.py", "photo.png"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explain", "{photo}", "--model", "bundled:squeeze"], "nearest: 'squeezenet1_1'"),
        (["explain", "{photo}", "--model", "nonsense"], "no model 'nonsense'"),
        (["layers", "--model", "{photo}:make"], "no model"),
        (["explain", "--tehcnique", "x"], "No such option"),
        (["explain", "--technique"], "requires an argument"),
        (["explian"], "No such command"),
        (["list", "everything"], "unexpected extra argument"),
    ],
)
def test_a_wrong_model_option_or_command_is_told_too(
    arguments: list[str], words: str, photo: Path, out: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo.parent)
    assert words in refused(*[argument.format(photo=photo) for argument in arguments])
    assert os.listdir(photo.parent) == ["photo.png"]


def test_no_cuda_is_told(spec: str, photo: Path, out: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "no CUDA device" in refused("explain", photo, "--model", spec, "--device", "cuda", "--out", out)


def test_a_model_that_fails_is_told(tmp_path: Path, photo: Path, refused: Refused) -> None:
    (tmp_path / "bad.py").write_text("from torch import nn\nmake = lambda: nn.Conv2d(5, 2, 3)\n")
    assert "failed on inputs of shape (1, 3, 224, 224)" in refused("layers", "--model", f"{tmp_path / 'bad.py'}:make")
    assert "failed on inputs" in refused(
        "demo", "--image", photo, "--model", f"{tmp_path / 'bad.py'}:make", "--out", tmp_path / "out"
    )


def test_an_interrupt_ends_with_130_and_leaves_nothing(
    spec: str, photo: Path, out: Path, attribution: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "explain", interrupt)
    outcome = attribution("explain", photo, "--model", spec, "--out", out)
    assert getattr(outcome, "code", None) == 130
    assert not out.exists()


def test_a_process_of_its_own_ends_with_2() -> None:
    command = [sys.executable, "-m", "attribution", "explain", "missing.jpg", "--technique", "gradcam"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: no technique 'gradcam'")
    assert len(done.stderr.splitlines()) == 1
