"""What figures show, and what their texts say."""

import os
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from attribution import plots
from attribution.errors import InputError, OutputError

INFERNO = matplotlib.colormaps["inferno"]
RED_BLUE = matplotlib.colormaps["RdBu_r"]


def picture(height: int = 17, width: int = 23) -> np.ndarray:
    return np.random.default_rng(0).random((height, width, 3))


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def texts(figure: Figure) -> list[str]:
    titles = [axes.get_title() for axes in figure.axes]
    return [text for text in [*titles, *(text.get_text() for text in figure.texts)] if text]


def shown(figure: Figure, title: str) -> np.ndarray:
    """The colours (h, w, 3) that the panel called ``title`` puts on the canvas."""
    (drawn,) = [axes.images[0] for axes in figure.axes if axes.get_title() == title]
    values = drawn.get_array()
    assert values is not None
    return np.asarray(drawn.to_rgba(np.ma.getdata(values)))[..., :3]


def test_activations_show_channels_of_the_first_image_each_on_its_own_scale() -> None:
    maps = {"stem": noise(2, 9, 4, 5), "body": noise(2, 3, 2, 2)}
    figure = plots.activation_figure(maps, channels=4, title="what layers see")
    assert texts(figure) == [
        *(f"stem ch {i}" for i in range(4)),
        *(f"body ch {i}" for i in range(3)),
        "what layers see",
        "stem\n9 × 4 × 5",
        "body\n3 × 2 × 2",
    ]
    channel = maps["stem"][0, 3]
    levels = (channel - channel.min()) / (channel.max() - channel.min())
    expected = matplotlib.colormaps["viridis"](levels.double().numpy())[..., :3]
    np.testing.assert_allclose(shown(figure, "stem ch 3"), expected, atol=0.02)  # a step of the colour map
    mutant = plots.activation_figure({"stem": maps["stem"].mT}, channels=4)
    assert shown(mutant, "stem ch 3").shape != shown(figure, "stem ch 3").shape


def test_activations_of_other_ranks_are_strips() -> None:
    figure = plots.activation_figure({"tokens": noise(2, 5, 7), "logits": noise(2, 11), "conv": noise(2, 2, 3, 3)})
    assert shown(figure, "tokens all values").shape == (5, 7, 3)
    assert shown(figure, "logits all values").shape == (1, 11, 3)
    assert "logits\n11" in texts(figure)


def test_positive_heatmaps_are_overlays() -> None:
    image, maps = picture(), {"head": noise(1, 2, 4, 5).abs()}
    figure = plots.heatmap_figure(maps, image=image, titles=["espresso", "cup"])
    assert texts(figure) == ["image", "head · espresso", "head · cup"]
    np.testing.assert_allclose(shown(figure, "image"), image)
    np.testing.assert_allclose(shown(figure, "head · cup"), plots.overlay(image, maps["head"][0, 1]))


def test_signed_heatmaps_are_red_above_zero_and_symmetric() -> None:
    map = torch.tensor([[3.0, -3.0, 0.0], [1.0, -1.0, 1.5]])
    figure = plots.heatmap_figure({"input": map[None, None]}, signed=True, titles=["cat"])
    colours = shown(figure, "cat")
    np.testing.assert_allclose(colours[0, 0], RED_BLUE(1.0)[:3])
    np.testing.assert_allclose(colours[0, 1], RED_BLUE(0.0)[:3])
    np.testing.assert_allclose(colours[0, 2], RED_BLUE(0.5)[:3])
    assert colours[0, 0, 0] > colours[0, 0, 2]  # positive is red
    assert colours[1, 1, 2] > colours[1, 1, 0]  # negative is blue
    flipped = shown(plots.heatmap_figure({"input": -map[None, None]}, signed=True, titles=["cat"]), "cat")
    assert not np.allclose(flipped, colours)


def test_signed_heatmaps_print_the_true_values_at_their_bar() -> None:
    maps = {"input": torch.tensor([[[[0.25, -0.125]]]])}
    figure = plots.heatmap_figure(maps, image=picture(), signed=True)
    figure.canvas.draw()
    ticks = [label.get_text() for axes in figure.axes for label in axes.get_yticklabels() if axes.child_axes == []]
    labels = [
        label.get_text() for axes in figure.axes for child in axes.child_axes for label in child.get_yticklabels()
    ]
    assert {"-0.25", "0", "0.25"} <= {*ticks, *labels}


def test_signed_heatmaps_shade_the_picture_and_keep_the_hue() -> None:
    image = np.ones((2, 2, 3))
    image[1] = 0.0
    map = torch.tensor([[2.0, 2.0], [2.0, 1.0]])
    figure = plots.heatmap_figure({"input": map[None, None]}, image=image, signed=True, titles=["cat"])
    colours = shown(figure, "cat")
    np.testing.assert_allclose(colours[0, 0], RED_BLUE(1.0)[:3])
    np.testing.assert_allclose(colours[1, 0], 0.5 * np.array(RED_BLUE(1.0)[:3]))


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("image", [None, picture()])
def test_a_zero_map_is_drawn_without_nan(signed: bool, image: np.ndarray | None, tmp_path: Path) -> None:
    figure = plots.heatmap_figure({"input": torch.zeros(1, 1, 4, 4)}, image=image, signed=signed, titles=["cat"])
    assert np.isfinite(shown(figure, "cat · zero everywhere")).all()
    plots.save(figure, tmp_path / "zero.png")


def test_titles_may_differ_from_image_to_image() -> None:
    maps = {"head": noise(2, 2, 3, 3), "body": noise(2, 2, 5, 5)}
    figure = plots.heatmap_figure(maps, titles=["a", "b", "c", "d"])
    expected = [f"{key} · {t}" for pair in ("ab", "cd") for key in ("head", "body") for t in pair]
    assert texts(figure) == expected
    shared = plots.heatmap_figure(maps, titles=["a", "b"])
    assert texts(shared)[-1] == "body · b"


def test_more_targets_than_can_be_read_are_left_out_and_said() -> None:
    figure = plots.heatmap_figure({"head": noise(1, 50, 2, 2)}, title="all classes")
    assert len(figure.axes) == 40
    assert "all classes (the first 40 of 50 targets)" in texts(figure)


def test_pictures_are_centred_and_scaled_by_their_spread() -> None:
    image = noise(1, 3, 4, 5)
    figure = plots.image_figure({"stem": image * 7 + 3}, titles=["channel 4"], title="patterns")
    assert texts(figure) == ["stem · channel 4", "patterns"]
    values = image[0].double().numpy()
    expected = np.clip(0.5 + 0.25 * (values - values.mean()) / values.std(), 0, 1).transpose(1, 2, 0)
    np.testing.assert_allclose(shown(figure, "stem · channel 4"), expected, atol=1e-6)


def test_a_flat_picture_is_grey_and_other_channel_counts_too() -> None:
    figure = plots.image_figure({"stem": torch.stack([torch.zeros(1, 2, 2), torch.full((1, 2, 2), 9.0)])})
    np.testing.assert_allclose(shown(figure, "stem · 1"), 0.5, atol=0.003)


def test_the_difference_has_its_own_printed_scale() -> None:
    a = {"head": torch.tensor([[[[1.0, -2.0], [0.5, 0.0]]]])}
    b = {"head": a["head"] + torch.tensor([[0.0, 0.0], [0.0, -0.001]])}
    figure = plots.difference_figure(a, b, ("hooks", "captum"))
    assert texts(figure)[:3] == ["head\nhooks", "head\ncaptum", "head\nhooks − captum"]
    np.testing.assert_allclose(shown(figure, "head\nhooks")[0, 1], RED_BLUE(0.0)[:3])
    np.testing.assert_allclose(shown(figure, "head\nhooks − captum")[1, 1], RED_BLUE(1.0)[:3])  # a - b > 0
    swapped = plots.difference_figure(b, a, ("captum", "hooks"))
    np.testing.assert_allclose(shown(swapped, "head\ncaptum − hooks")[1, 1], RED_BLUE(0.0)[:3])


def test_equal_answers_say_so_and_many_channels_are_cut() -> None:
    maps = {"body": noise(2, 11, 3, 3), "logits": noise(2, 4)}
    figure = plots.difference_figure(maps, {key: map.clone() for key, map in maps.items()}, ("a", "b"))
    assert "body · 7\na − b: no difference" in texts(figure)
    assert not any(text.startswith("body · 8") for text in texts(figure))
    assert "logits\na" in texts(figure)


def test_a_difference_of_other_shapes_is_an_error() -> None:
    with pytest.raises(InputError, match="expected the same shapes"):
        plots.difference_figure({"a": noise(1, 1, 2, 2)}, {"a": noise(1, 1, 3, 2)}, ("x", "y"))


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: plots.heatmap_figure({}), "no maps"),
        (lambda: plots.heatmap_figure({"a": noise(3)}), "expected (N, T, h, w)"),
        (lambda: plots.heatmap_figure({"a": noise(1, 1, 3, 3)}, scale="all"), "scale is 'all'"),
        (lambda: plots.heatmap_figure({"a": noise(1, 1, 3, 3)}, scale=(1, 0)), "scale is (1, 0)"),
        (lambda: plots.heatmap_figure({"a": noise(1, 1, 3, 3)}, columns=0), "columns is 0"),
        (lambda: plots.heatmap_figure({"a": noise(1, 1, 3, 3)}, size=0), "size is 0"),
        (lambda: plots.heatmap_figure({"a": noise(1, 1, 3, 3)}, aspect=0), "aspect is 0"),
        (lambda: plots.heatmap_figure({"a": noise(1, 1, 3, 3)}, cmap="jte"), "nearest: 'jet'"),
        (lambda: plots.heatmap_figure({"a": noise(1, 2, 3, 3)}, titles=["one"]), "1 titles for 1 images × 2"),
        (lambda: plots.heatmap_figure({"a": noise(1, 2, 3, 3), "b": noise(1, 1, 3, 3)}), "differ in images"),
        (lambda: plots.heatmap_figure({"a": noise(2, 1, 3, 3)}, image=picture()), "1 pictures for 2 maps"),
        (lambda: plots.activation_figure({"a": noise(1, 2, 3, 3)}, channels=0), "at least 1"),
        (lambda: plots.activation_figure({"a": noise(1, 0, 3, 3)}), "expected a leading image axis"),
        (lambda: plots.image_figure({"a": noise(2, 3, 3, 3)}, titles=["one"]), "1 titles for 2 pictures"),
    ],
)
def test_figures_say_what_is_wrong(draw: Callable[[], Figure], words: str) -> None:
    with pytest.raises(InputError) as caught:
        draw()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.activation_figure({"stem": noise(1, 3, 4, 5)}),
        lambda: plots.heatmap_figure({"head": noise(1, 1, 4, 5)}, image=picture(), signed=True, title="$5 & \\frac"),
        lambda: plots.heatmap_figure({"head": noise(1, 1, 4, 5)}, image=picture()),
        lambda: plots.image_figure({"stem": noise(5, 3, 8, 8)}),
        lambda: plots.difference_figure({"head": noise(1, 1, 4, 5)}, {"head": noise(1, 1, 4, 5) + 1}, ("a", "b")),
    ],
    ids=["activations", "signed", "overlay", "pictures", "difference"],
)
def test_saved_figures_reopen_and_are_not_blank(draw: Callable[[], Figure], tmp_path: Path) -> None:
    plots.save(draw(), tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as file:
        assert file.format == "PNG"
        pixels = np.asarray(file.convert("RGB"), dtype=float)
    assert pixels.std() > 20
    blank = Figure(figsize=(2, 2))
    plots.save(blank, tmp_path / "blank.png")
    with Image.open(tmp_path / "blank.png") as file:
        assert np.asarray(file.convert("RGB"), dtype=float).std() < 1
    assert sorted(os.listdir(tmp_path)) == ["blank.png", "figure.png"]


def test_no_panel_or_title_covers_another() -> None:
    figure = plots.heatmap_figure(
        {"features.12.expand3x3": noise(1, 9, 4, 5)},
        image=picture(),
        signed=True,
        titles=["a class label that is far too long to fit over a panel of two inches"] * 9,
        title="occlusion · hooks",
    )
    figure.canvas.draw()
    boxes = [axes.title.get_window_extent() for axes in figure.axes] + [axes.bbox for axes in figure.axes]
    boxes += [text.get_window_extent() for text in figure.texts]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_a_missing_folder_is_an_output_error_that_leaves_nothing(tmp_path: Path) -> None:
    figure = plots.image_figure({"stem": noise(1, 3, 4, 4)})
    with pytest.raises(OutputError, match="no folder"):
        plots.save(figure, tmp_path / "missing" / "figure.png")
    (tmp_path / "figure.png").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        plots.save(figure, tmp_path / "figure.png")
    assert os.listdir(tmp_path) == ["figure.png"]
