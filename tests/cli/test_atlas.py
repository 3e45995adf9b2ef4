"""``attribution atlas``: a whole layer on one page."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import attribution as core
from attribution import plots
from attribution.errors import InputError
from tests.conftest import noise

QUICK = ("-p", "steps=4", "-p", "size=24")
DEAD_ONES = """
from attribution.testing import small_cnn

def make():
    model = small_cnn()
    model.body.weight.data[[1, 4]] = 0
    return model
"""


def test_a_layer_on_one_page(attribution: Callable[..., Any], spec: str, out: Path) -> None:
    done = attribution("atlas", "--layer", "body", "-m", spec, *QUICK, "-o", out)
    assert (done.code, done.err) == (0, "")
    assert sorted(os.listdir(out)) == ["atlas.body.png", "atlas.body.safetensors"]
    assert f"{out / 'atlas.body.png'}  body · 8 channels, 0 dead · hooks" in done.out.splitlines()
    saved = core.load(out / "atlas.body.safetensors")
    assert saved.map.shape == (8, 3, 24, 24)
    assert saved.technique.spread == 0.5, "from the transform"  # type: ignore[attr-defined]


def test_the_strongest_comes_first_and_the_dead_are_crossed_out(
    attribution: Callable[..., Any], tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dead.py").write_text(DEAD_ONES)
    asked: dict[str, Any] = {}
    draw = plots.contact_sheet
    monkeypatch.setattr(plots, "contact_sheet", lambda images, **words: asked.update(words) or draw(images, **words))
    done = attribution("atlas", "-l", "body", "-m", f"{tmp_path / 'dead.py'}:make", *QUICK, "-o", out)
    assert "8 channels, 2 dead" in done.out
    objective = core.load(out / "atlas.body.safetensors").extras["objective"][-1]
    alive = [c for c in objective.argsort(descending=True).tolist() if c not in (1, 4)]
    assert asked["titles"] == [*(f"{c}: {objective[c]:.3g}" for c in alive), "1: dead", "4: dead"]
    assert asked["empty"] == [False] * 6 + [True] * 2


def test_some_channels_classes_and_the_other_backend(attribution: Callable[..., Any], spec: str, out: Path) -> None:
    assert attribution("atlas", "-l", "body", "-m", spec, *QUICK, "-p", "channels=[5, 2]", "-o", out).code == 0
    assert core.load(out / "atlas.body.safetensors").technique.channels == (5, 2)  # type: ignore[attr-defined]
    assert attribution("atlas", "-l", "logits", "-m", spec, "-b", "captum", *QUICK, "-o", out).code == 0
    found = core.load(out / "atlas.logits.safetensors")
    assert (found.backend, found.map.shape[0]) == ("captum", 5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-l", "bdoy"), "no layer"),
        (("-l", "body", "-p", "layer='stem'"), "take one of them away"),
        (("-l", "body", "-p", "depth=3"), "has no parameter 'depth'"),
    ],
)
def test_mistakes_are_told(refused: Callable[..., str], spec: str, arguments: Any, words: str) -> None:
    assert words in refused("atlas", "-m", spec, *arguments)


@pytest.mark.parametrize("count", [1, 64, 512])
def test_a_contact_sheet_holds_all(tmp_path: Path, count: int) -> None:
    images = torch.linspace(-1, 1, 32).expand(count, 3, 32, 32).clone()
    figure = plots.contact_sheet(images, titles=[str(i) for i in range(count)], empty=[True] + [False] * (count - 1))
    plots.save(figure, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as file:
        page = np.asarray(file.convert("L"), dtype=float)
        width, height = file.size
    dark = (page < 60).sum() / (32 * 32)
    assert dark >= 0.1 * (count - 1), "every picture is dark on its left"
    assert width <= 4200
    if count > 1:
        assert 0.9 < width / height < 2.2


def test_the_dead_are_drawn_without_their_pixels() -> None:
    loud = noise(2, 3, 24, 24)
    pages = []
    for first in (loud[:1], 5 - loud[:1].flip(-1)):
        figure = plots.contact_sheet(torch.cat([first, loud[1:]]), titles=["a", "b"], empty=[True, False])
        pages.append(np.asarray(figure.axes[0].images[0].get_array()))
    assert np.array_equal(pages[0], pages[1])
    assert not np.array_equal(pages[0][4:28, 4:28], pages[0][4:28, 32:56])


def test_titles_must_fit() -> None:
    with pytest.raises(InputError, match="1 titles"):
        plots.contact_sheet(noise(2, 3, 8, 8), titles=["a"])
    with pytest.raises(InputError, match="expected \\(K, C, H, W\\)"):
        plots.contact_sheet(noise(3, 8, 8), titles=[])
