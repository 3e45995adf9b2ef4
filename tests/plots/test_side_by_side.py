"""Answers of several techniques on one figure: what panels are called, and what they show."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from attribution import (
    Activations,
    GradCAM,
    InputError,
    LayerCAM,
    Saliency,
    compare,
    explain,
    explain_many,
    side_by_side,
)
from attribution.plots import Heatmaps, side_by_side_figure
from tests.conftest import build, noise

INPUTS = noise(2, 3, 17, 23)
PICTURES = np.random.default_rng(0).random((2, 17, 23, 3))
ASKED = {"cam": GradCAM(layers=("body",)), "signed": LayerCAM(layers=("body",), relu=False), "input": Saliency()}


def panels(figure: Any) -> list[tuple[str, Any]]:
    """Titles and pixels, line by line."""
    found = [(axes.get_title(), axes.images[0]) for axes in figure.axes if axes.images]
    return [(title, image) for title, image in found if title]


def test_every_panel_says_whose_it_is() -> None:
    found = explain_many(build("cnn"), INPUTS, ASKED, target=[[3], [1]])
    drawn = panels(side_by_side(found, PICTURES, ["a", "b", "c", "d", "e"]))
    titles = [title.split("\n") for title, _ in drawn]
    own = ["cam · body", "signed · body", "input"]
    assert [lines[0] for lines in titles] == ["image 0", *own, "image 1", *own]
    assert [lines[1].split()[0] for lines in titles if len(lines) > 1] == ["d"] * 3 + ["b"] * 3
    scores = found["cam"].scores
    assert scores is not None
    assert titles[1][1] == f"d {float(scores[0, 0]):.3g}"


def test_panels_show_the_maps_of_their_own_technique_and_image() -> None:
    found = explain_many(build("cnn"), INPUTS, ASKED, target=[[3, 1], [1, 0]])
    drawn = panels(side_by_side(found))
    expected = [
        each.technique.drawn(each.maps)[0][key][n, t]
        for n in range(2)
        for each in found.values()
        for key in each.maps
        for t in range(2)
    ]
    assert len(drawn) == len(expected) == 12
    for (_, image), map_ in zip(drawn, expected, strict=True):
        assert np.allclose(np.asarray(image.get_array()), map_.double().numpy())
        low, high = image.get_clim()
        assert high == pytest.approx(float(map_.abs().max()), rel=1e-6)
        assert low in (0.0, pytest.approx(-high))


def test_many_panels_begin_a_line_for_each_technique() -> None:
    maps = {"input": torch.rand(1, 4, 5, 6)}
    figure = side_by_side_figure({"a": Heatmaps(maps), "b": Heatmaps(maps)}, image=PICTURES[0])
    heights = [round(axes.get_position().y0, 3) for axes in figure.axes if axes.get_title()]
    assert len(set(heights)) == 2


def test_normalised_inputs_are_shown_as_they_were() -> None:
    model, mean, std = build("cnn"), (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
    pixels = torch.rand(1, 3, 17, 23, generator=torch.Generator().manual_seed(0))
    inputs = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    asked = {"cam": GradCAM(layers=("body",))}
    found, both = explain_many(model, inputs, asked), compare(model, inputs, asked["cam"])
    for drawn in (partial(side_by_side, found), both.figure):
        figures = [drawn(inputs, mean=mean, std=std), drawn(pixels), drawn(pixels.flip(1))]
        right, expected, other = (
            [np.asarray(image.get_array()) for a in each.axes for image in a.images] for each in figures
        )
        assert all(np.allclose(one, two, atol=1e-5) for one, two in zip(right, expected, strict=True))
        assert not all(np.allclose(one, two, atol=1e-5) for one, two in zip(other, expected, strict=True))
    with pytest.raises(InputError, match="of normalised inputs give mean= and std="):
        compare(model, inputs, asked["cam"]).figure(inputs)
    with pytest.raises(InputError, match="results are a list; give a dict from names to answers"):
        side_by_side([explain(model, inputs, asked["cam"])], inputs)  # type: ignore[arg-type]


def test_what_cannot_stand_beside_each_other_is_refused() -> None:
    model = build("cnn")
    with pytest.raises(InputError, match=r"^values: activations gives no heatmaps"):
        side_by_side({"values": explain(model, INPUTS, Activations(layers=("body",)))})
    one = explain(model, INPUTS[:1], GradCAM(layers=("body",)))
    two = explain(model, INPUTS, GradCAM(layers=("body",)))
    with pytest.raises(InputError, match=r"maps are of \[1, 2\] images"):
        side_by_side({"one": one, "two": two})
    with pytest.raises(InputError, match="no techniques to draw"):
        side_by_side({})
