"""What all gradient techniques share: channels, several inputs, figures, files, errors, and how short they are."""

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attribution import InputXGradient, IntegratedGradients, ModelError, Saliency, explain, load, plots
from attribution.technique import Technique
from attribution.techniques.gradient.family import Channels
from attribution.testing import small_cnn
from tests.conftest import BACKENDS
from tests.techniques.gradient.cases import cases, noise

ROOT = Path(__file__).parents[3]
CORE = ROOT / "attribution/techniques/gradient"
HOOKS = ROOT / "backends/attribution_hooks/gradient"
CAPTUM = ROOT / "backends/attribution_captum/gradients.py"
CHANNELS: tuple[Channels, ...] = ("none", "sum", "max")
TECHNIQUES = ["saliency", "input_x_gradient", "integrated_gradients"]


def largest(values: Tensor) -> Tensor:
    """(N, T, C, h, w) → (N, T, h, w), of each place the value of the largest |value|."""
    count, targets, _, height, width = values.shape
    found = values.new_zeros(count, targets, height, width)
    for n in range(count):
        for t in range(targets):
            for i in range(height):
                for j in range(width):
                    found[n, t, i, j] = max(values[n, t, :, i, j].tolist(), key=abs)
    return found


@BACKENDS
@pytest.mark.parametrize("kind", [Saliency, InputXGradient, IntegratedGradients])
def test_channels(kind: Any, backend: str) -> None:
    case = cases(3)["image"]

    def map_of(channels: str) -> Tensor:
        return explain(case.model, case.given, kind(channels=channels), backend=backend, target=case.target).map

    kept = map_of("none")
    assert kept.shape == (3, 2, 3, 7, 10)
    assert (map_of("sum") - kept.sum(dim=2)).abs().max() < 1e-12
    assert torch.equal(map_of("max"), largest(kept))
    assert not torch.equal(map_of("max"), kept.amax(dim=2)) or kind is Saliency


@BACKENDS
def test_features_have_no_channels(backend: str) -> None:
    case = cases(3)["features"]
    for channels in CHANNELS:
        asked = InputXGradient(channels=channels)
        assert explain(case.model, case.given, asked, backend=backend, target=case.target).map.shape == (3, 2, 6)


@BACKENDS
def test_one_map_for_each_explained_input(backend: str) -> None:
    case = cases(3)["two"]
    asked = IntegratedGradients(steps=3, channels="sum")
    maps = explain(case.model, case.given, asked, backend=backend, target=case.target).maps
    assert {key: tuple(map_.shape) for key, map_ in maps.items()} == {"input.0": (3, 2, 7, 10), "input.1": (3, 2, 6)}


def test_an_input_that_the_score_does_not_depend_on_has_a_map_of_zeros() -> None:
    class First(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a.square()

    result = explain(First(), (noise(2, 4), noise(2, 5)), InputXGradient(), target=1)
    assert not result.maps["input.1"].any()
    assert result.maps["input.0"].any()


@BACKENDS
@pytest.mark.parametrize("asked", [Saliency(), InputXGradient(), IntegratedGradients(steps=2)])
def test_no_gradient_is_an_error(asked: Technique, backend: str) -> None:
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().square()

    with pytest.raises(ModelError, match="gradient"):
        explain(Cut(), noise(2, 4), asked, backend=backend, target=1)


@pytest.mark.parametrize("asked", [Saliency(), InputXGradient(), IntegratedGradients(steps=3)])
def test_figures(asked: Technique) -> None:
    """Channels that are kept are added up in a figure, the largest values are cut, and its title says so."""
    result = explain(small_cnn(), noise(1, 3, 17, 23, dtype=torch.float32), asked, target=2)
    figure = result.figure()
    titles = " ".join(text.get_text() for text in figure.texts)
    assert ("sum over channels" in titles) == (asked.name != "saliency")
    shown = [np.asarray(image.get_array()) for axes in figure.axes for image in axes.get_images()]
    assert "the largest 1% cut" in titles
    whole = (result.map[0, 0].sum(dim=0) if result.map.ndim == 5 else result.map[0, 0]).numpy()
    reach = np.sort(abs(whole).flatten())[-5]  # of 391 values 4 are larger
    plane = whole.clip(-reach, reach)
    assert abs(whole).max() > 1.2 * reach
    assert any(values.shape == plane.shape and abs(values - plane).max() < 1e-6 for values in shown)


def test_the_figure_of_a_difference_has_a_line_for_each_channel() -> None:
    a, b = (noise(1, 2, 3, 5, 7, seed=seed) for seed in (0, 1))
    figure = plots.difference_figure({"input": a}, {"input": b}, ("hooks", "captum"))
    shown = [np.asarray(image.get_array()) for axes in figure.axes for image in axes.get_images()]
    expected = [plane for t in range(2) for c in range(3) for plane in (a[0, t, c], b[0, t, c], (a - b)[0, t, c])]
    found = [values for values in shown if values.shape == (5, 7)]
    assert len(found) == len(expected) == 18
    assert all(abs(values - plane.numpy()).max() < 1e-12 for values, plane in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "asked",
    [
        Saliency(absolute=False),
        InputXGradient(),
        IntegratedGradients(steps=3, baseline=noise(3, 7, 10, seed=6)),
        IntegratedGradients(steps=3, baseline=(0.0, 1.0, 2.0)),
    ],
)
def test_files(asked: Technique, tmp_path: Path) -> None:
    case = cases(2)["image"]
    result = explain(case.model, case.given, asked, target=case.target)
    read = load(result.save(tmp_path / "map.safetensors"))
    assert read.technique == asked
    assert torch.equal(read.map, result.map)
    assert read.extras.keys() == result.extras.keys()


def lines(tree: ast.AST, text: str) -> int:
    """Lines of code: no docstrings, no comments, no blank ones."""
    left_out: set[int] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        head = body[0] if isinstance(body, list) and body else None
        if isinstance(head, ast.Expr) and isinstance(head.value, ast.Constant):
            left_out |= set(range(head.lineno, (head.end_lineno or 0) + 1))
    begin, end = getattr(tree, "lineno", 1), getattr(tree, "end_lineno", None) or len(text.splitlines())
    numbered = [(k, line.strip()) for k, line in enumerate(text.splitlines(), 1) if begin <= k <= end]
    return sum(1 for k, line in numbered if line and not line.startswith("#") and k not in left_out)


def file_lines(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    return lines(ast.parse(text), text)


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_technique_is_short(name: str) -> None:
    """Imports and all in the core and by hooks; by Captum, where one file holds three, the class."""
    assert file_lines(CORE / f"{name}.py") <= 40
    assert file_lines(HOOKS / f"{name}.py") <= 25
    text = CAPTUM.read_text(encoding="utf-8")
    wanted = f"Captum{name.title().replace('_', '')}".lower()
    classes = {node.name.lower(): node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
    assert 5 < lines(classes[wanted], text) <= 25


def test_lines_are_counted() -> None:
    text = '"""Doc."""\n\n# why\nx = 1\n\ndef f():\n    """Two\n    lines."""\n    return x\n'
    assert lines(ast.parse(text), text) == 3
