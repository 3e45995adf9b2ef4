"""How a figure of heatmaps is laid out, coloured and called."""

import io
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from attribution import (
    RISE,
    Activations,
    Attribution,
    ClassScore,
    GradCAM,
    Occlusion,
    Saliency,
    explain,
    plots,
    side_by_side,
)
from attribution.technique import Technique
from attribution.testing import small_cnn
from tests.conftest import noise

INFERNO = matplotlib.colormaps["inferno"]
PICTURE = np.random.default_rng(0).random((4, 6, 3))


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def bars(figure: Figure) -> list[list[str]]:
    """The numbers at each colour bar."""
    figure.canvas.draw()
    return [
        [label.get_text() for label in child.get_yticklabels()] for axes in figure.axes for child in axes.child_axes
    ]


def panel(figure: Figure, title: str) -> np.ndarray:
    (drawn,) = [axes.images[0] for axes in figure.axes if axes.get_title() == title]
    values = drawn.get_array()
    assert values is not None
    return np.asarray(drawn.to_rgba(np.ma.getdata(values)))[..., :3]


def positive(*shape: int) -> Tensor:
    return noise(*shape).abs()


def test_one_target_is_three_panels_with_one_bar() -> None:
    map = positive(1, 1, 4, 6)
    figure = plots.heatmap_figure({"head": map}, image=PICTURE, titles=["cup 3"], unit="logit")
    assert titles(figure) == ["image", "map", "head · cup 3"]
    np.testing.assert_allclose(panel(figure, "image"), PICTURE)
    values = map[0, 0].double().numpy()
    np.testing.assert_allclose(panel(figure, "map"), INFERNO(values / values.max())[..., :3], atol=0.02)
    over = 0.55 * PICTURE + 0.45 * INFERNO(values / values.max())[..., :3]
    np.testing.assert_allclose(panel(figure, "head · cup 3"), over)
    largest = float(map.max())
    assert bars(figure) == [["0", f"{largest / 2:.3g}", f"{largest:.3g}"]]
    assert [child.get_ylabel() for axes in figure.axes for child in axes.child_axes] == ["logit"]


def test_a_shared_scale_makes_two_maps_comparable() -> None:
    maps = {"input": torch.stack([torch.full((3, 3), 2.0), torch.full((3, 3), 1.0)])[None]}
    maps["input"][0, :, 0, 0] = 0.0
    each = plots.heatmap_figure(maps, titles=["a", "b"])
    shared = plots.heatmap_figure(maps, titles=["a", "b"], scale="shared")
    stated = plots.heatmap_figure(maps, titles=["a", "b"], scale=(0, 4), cmap="viridis")
    np.testing.assert_allclose(panel(each, "b")[1, 1], INFERNO(1.0)[:3])
    np.testing.assert_allclose(panel(shared, "b")[1, 1], INFERNO(0.5)[:3])
    np.testing.assert_allclose(panel(stated, "b")[1, 1], matplotlib.colormaps["viridis"](0.25)[:3])
    assert bars(each) == [["0", "1", "2"], ["0", "0.5", "1"]]
    assert bars(shared) == [["0", "1", "2"]] * 2
    assert bars(stated) == [["0", "2", "4"]] * 2


def test_signed_maps_share_a_scale_symmetric_about_zero() -> None:
    maps = {"input": torch.tensor([[[[1.0, -4.0]], [[1.0, 0.5]]]])}
    figure = plots.heatmap_figure(maps, titles=["a", "b"], signed=True, scale="shared")
    assert bars(figure) == [["-4", "0", "4"]] * 2
    np.testing.assert_allclose(panel(figure, "a")[0, 1], matplotlib.colormaps["RdBu_r"](0.0)[:3])


def test_where_zero_means_nothing_colours_go_from_the_smallest_value_to_the_largest() -> None:
    maps = {"input": torch.tensor([[[[0.5, 0.6]], [[0.7, 0.9]], [[0.2, 0.2]]]])}
    told = [["0.5", "0.55", "0.6"], ["0.7", "0.8", "0.9"], ["0.2", "0.7", "1.2"]]
    figure = plots.heatmap_figure(maps, titles=["a", "b", "c"], zero=False)
    assert bars(figure) == told
    np.testing.assert_allclose(panel(figure, "a"), [[INFERNO(0.0)[:3], INFERNO(1.0)[:3]]])
    assert titles(figure)[2] == "c · 0.2 everywhere"
    shared = plots.heatmap_figure(maps, titles=["a", "b", "c"], zero=False, scale="shared")
    assert bars(shared) == [["0.2", "0.55", "0.9"]] * 3
    from_zero = plots.heatmap_figure(maps, titles=["a", "b", "c"])
    assert bars(from_zero)[0] == ["0", "0.3", "0.6"]
    assert np.abs(panel(from_zero, "a") - panel(figure, "a")).max() > 0.1
    over = plots.overlay(np.zeros((1, 2, 3)), maps["input"][0, 0], alpha=1.0, zero=False)
    np.testing.assert_allclose(over, panel(figure, "a"))


def test_rise_says_that_its_zero_means_nothing() -> None:
    """All its values lie near the mean score; seen from 0 they are one colour."""
    assert [each.has_zero for each in (RISE, Occlusion, GradCAM)] == [False, True, True]
    result = explain(small_cnn(), noise(1, 3, 17, 23), RISE(masks=64, cells=4), target=1)
    low, high = float(result.map.min()), float(result.map.max())
    expected = [f"{value:.3g}" for value in (low, (low + high) / 2, high)]
    assert bars(result.figure()) == bars(side_by_side({"rise": result})) == [expected]


def test_a_map_of_no_class_is_called_what_it_is() -> None:
    maps = {"input": positive(1, 1, 4, 6)}
    assert titles(plots.heatmap_figure(maps, image=PICTURE)) == ["image", "map", "overlay"]
    assert titles(plots.heatmap_figure(maps)) == ["map"]


@pytest.mark.parametrize(("value", "said"), [(0.0, "zero everywhere"), (0.25, "0.25 everywhere")])
def test_a_map_without_any_change_says_so(value: float, said: str) -> None:
    maps = {"head": torch.full((1, 2, 3, 3), value)}
    maps["head"][0, 1, 0, 0] = 7.0
    assert titles(plots.heatmap_figure(maps, titles=["a", "b"])) == [f"head · a · {said}", "head · b"]


def test_series_are_curves_and_volumes_slices() -> None:
    curve = plots.heatmap_figure({"input": noise(1, 1, 9)}, signed=True, titles=["a"])
    (line,) = [line for line in curve.axes[0].lines if len(np.asarray(line.get_xdata())) == 9]
    np.testing.assert_allclose(np.asarray(line.get_ydata()), noise(1, 1, 9).flatten().numpy())
    volume = positive(1, 1, 11, 3, 4)
    figure = plots.heatmap_figure({"input": volume}, titles=["a"], image=PICTURE)
    assert titles(figure) == [f"a · slice {k}" for k in (0, 2, 5, 8, 10)]
    expected = INFERNO((volume[0, 0, 8] / volume.max()).double().numpy())[..., :3]
    np.testing.assert_allclose(panel(figure, "a · slice 8"), expected, atol=0.02)
    assert len(bars(figure)) == 1
    table = plots.heatmap_figure({"input": noise(2, 3)}, signed=True)
    assert len(table.axes) == 6


def test_many_images_stand_side_by_side() -> None:
    figure = plots.heatmap_figure({"head": positive(40, 1, 4, 6)}, image=np.stack([PICTURE] * 40))
    width, height = figure.get_size_inches()
    assert height < 2.5 * width
    assert titles(figure)[3:6] == ["image 1", "map", "head"]
    narrow = plots.heatmap_figure({"head": positive(40, 1, 4, 6)}, image=np.stack([PICTURE] * 40), columns=3)
    assert narrow.get_size_inches()[1] > 1.8 * height


def test_a_long_low_map_is_stretched_unless_told_otherwise() -> None:
    def height(**options: object) -> float:
        figure = plots.heatmap_figure({"input": positive(1, 1, 4, 400)}, size=4, **options)  # type: ignore[arg-type]
        return float(figure.axes[0].get_position().height * figure.get_size_inches()[1])

    assert height() == pytest.approx(1.0)
    assert height(aspect="equal") == pytest.approx(0.04)
    assert height(aspect=0.5) == pytest.approx(2.0)


def result(technique: Technique, **options: object) -> Attribution:
    return explain(small_cnn(), noise(1, 3, 17, 23), technique, **options)  # type: ignore[arg-type]


def heading(figure: Figure) -> str:
    return figure.texts[0].get_text()


def test_titles_are_words() -> None:
    names = ["tea", "cup", "spoon", "jug", "pan"]
    cam = result(GradCAM(layers=("body",)), target=3)
    assert heading(cam.figure(labels=names, model="Net 1.1")) == "Grad-CAM of 'jug' · body · Net 1.1"
    assert heading(cam.figure()) == f"Grad-CAM of class 3 · body · {cam.provenance['model']}"
    several = result(GradCAM(layers=("body",)), target=[[3, 1]]).figure(labels=names, model="Net")
    assert heading(several) == "Grad-CAM · Net"
    assert [title.rpartition(" ")[0] for title in titles(several)] == ["body · jug", "body · cup"]
    cover = result(Occlusion(window=9, stride=4), target=3).figure(labels=names, model="Net")
    assert heading(cover) == "Occlusion of 'jug' · Net"
    assert heading(result(Activations(layers=("body",))).figure(model="Net")) == "Activations · Net"


@pytest.mark.parametrize(
    ("technique", "target", "unit"),
    [
        (GradCAM(layers=("body",)), 3, "logit"),
        (Occlusion(window=9, stride=4), 3, "probability"),
        (Occlusion(window=9, stride=4), ClassScore(3, of="log_probability"), "log probability"),
        (Saliency(), 3, "logit per unit of the input"),
        (GradCAM(layers=("body",)), lambda output: output[:, 1] ** 2, "score"),
    ],
)
def test_a_bar_has_the_unit_of_the_score(technique: Technique, target: object, unit: str) -> None:
    figure = result(technique, target=target).figure()
    assert [child.get_ylabel() for axes in figure.axes for child in axes.child_axes] == [unit]


def test_a_figure_shows_itself() -> None:
    figure = result(GradCAM(layers=("body",)), target=3).figure()
    with Image.open(io.BytesIO(figure._repr_png_())) as picture:  # type: ignore[attr-defined]
        assert np.asarray(picture.convert("L")).std() > 5


def test_a_figure_for_print_has_more_pixels(tmp_path: Path) -> None:
    figure = result(GradCAM(layers=("body",)), target=3).figure()
    for dpi in (150, 300):
        plots.save(figure, tmp_path / f"{dpi}.png", dpi=dpi)
    with Image.open(tmp_path / "150.png") as plain, Image.open(tmp_path / "300.png") as fine:
        assert fine.width / plain.width == pytest.approx(2, abs=0.02)
