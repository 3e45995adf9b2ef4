from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attribution.cli import main

MODEL = """
import numpy as np
import torch
from attribution.testing import small_cnn
from attribution.zoo import LoadedModel

def transform(photo):
    pixels = np.array(photo.resize((23, 17)), dtype=np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).movedim(-1, 0).contiguous()

def make():
    labels = ("teapot", "espresso", "cup", "saucer", "spoon")
    half = (0.5, 0.5, 0.5)
    return LoadedModel(name="", model=small_cnn(), transform=transform, mean=half, std=half, labels=labels)
"""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def spec(tmp_path: Path) -> str:
    """A small model with five named classes, as a user's file."""
    (tmp_path / "model.py").write_text(MODEL)
    return f"{tmp_path / 'model.py'}:make"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return paint(tmp_path / "photo.png", seed=0)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results"


def paint(path: Path, *, seed: int) -> Path:
    """A picture of coarse noise in a file."""
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((60, 40), Image.Resampling.BILINEAR).save(path)
    return path


@pytest.fixture
def painted() -> Callable[..., Path]:
    return paint


@pytest.fixture
def attribution(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """The command, in this process."""

    def run(*arguments: object) -> Outcome:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def refused(attribution: Callable[..., Outcome]) -> Callable[..., str]:
    """What the command says when it refuses: one or two plain lines after its notes, exit code 2, nothing on stdout."""

    def run(*arguments: object) -> str:
        outcome = attribution(*arguments)
        assert outcome.code == 2, outcome
        assert outcome.out == ""
        assert "Traceback" not in outcome.err
        told = [line for line in outcome.err.splitlines() if not line.startswith("note: ")]
        assert told[0].startswith("error: ")
        assert len(told) <= 2
        return "\n".join([*told, ""]).removeprefix("error: ")

    return run
