"""Labels in whatever form they are kept, and pictures of 16 bits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from attribution import Attribution, GradCAM, InputError, plots
from attribution.zoo import LoadedModel
from tests.conftest import build

NAMES = ["teapot", "espresso", "cup"]


def result() -> Attribution:
    maps = {"body": torch.rand(2, 2, 5, 7, generator=torch.Generator().manual_seed(0))}
    target, scores = torch.tensor([[2, 1], [0, 2]]), torch.tensor([[0.5, 0.25], [1.0, 2.0]])
    return Attribution(maps, GradCAM(layers=("body",)), "hooks", target=target, scores=scores)


def titles(labels: Any) -> list[str]:
    return [axes.get_title().partition(" · ")[2] for axes in result().figure(labels=labels).axes]


@pytest.mark.parametrize(
    "labels",
    [
        NAMES,
        tuple(NAMES),
        np.array(NAMES),
        np.array(NAMES, dtype=object),
        dict(enumerate(NAMES)),
        {str(index): name for index, name in enumerate(NAMES)},
        {np.int64(index): np.str_(name) for index, name in enumerate(NAMES)},
    ],
    ids=lambda labels: f"{type(labels).__name__}",
)
def test_every_form_of_labels_names_the_same(labels: Any) -> None:
    assert titles(labels) == ["cup 0.5", "espresso 0.25", "teapot 1", "cup 2"]


def test_classes_without_a_name() -> None:
    assert titles(None) == ["class 2 0.5", "class 1 0.25", "class 0 1", "class 2 2"]
    assert titles({2: "cup"}) == ["cup 0.5", "class 1 0.25", "class 0 1", "cup 2"]
    assert titles({}) == titles(None)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (NAMES[:2], "labels has 2 names, but class 2 is to be named"),
        ([], "labels has 0 names"),
        (np.array([]), "labels has 0 names"),
        ("cup", "labels is 'cup'"),
        (3, "labels is 3"),
        ({"cup": 2}, "turn it round"),
        ({True: "cup"}, "which is no class index"),
        ({-1: "cup"}, "which is no class index"),
        ({2: "cup", "2": "mug"}, "names class 2 twice"),
        ({"2": ["n0793", "cup"]}, "a name is a str"),
        ([1, 2, 3], "a name is a str"),
        (np.array([b"a", b"b", b"c"]), "a name is a str"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_labels_that_name_nothing_are_refused(labels: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        result().figure(labels=labels)


def test_a_loaded_model_takes_them_too() -> None:
    def loaded(labels: Any) -> LoadedModel:
        return LoadedModel("mine", build("cnn"), lambda photo: torch.zeros(3, 5, 7), (0.0,) * 3, (1.0,) * 3, labels)

    for labels in (NAMES, np.array(NAMES), {0: "teapot", "1": "espresso", 2: "cup"}):
        assert loaded(labels).labels == tuple(NAMES)
        assert loaded(labels).index("Cup") == 2
    assert loaded({2: "cup"}).labels == ("class 0", "class 1", "cup")
    assert loaded(None).label(7) == "class 7"
    with pytest.raises(InputError, match="turn it round"):
        loaded({"cup": 0})


RAMP = np.linspace(0, 65535, 5 * 7).reshape(5, 7).astype(np.uint16)


def drawn(image: Any) -> np.ndarray:
    """What the figure shows in place of the picture."""
    return first(plots.heatmap_figure({"input": torch.ones(1, 1, 5, 7)}, image=image))


def first(figure: Figure) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array())


def test_a_picture_of_16_bits_is_as_light_as_it_is() -> None:
    image = Image.fromarray(RAMP)
    assert image.mode == "I;16"
    shown = drawn(image)
    np.testing.assert_allclose(shown[..., 0], RAMP / 65535, atol=1 / 255)
    assert 0.45 < shown.mean() < 0.55  # clipped to 8 bits it is white: 0.97 on average
    clipped = np.asarray(image.convert("RGB")) / 255
    assert clipped.mean() > 0.9


def test_other_pictures_of_pillow() -> None:
    grey = (RAMP // 257).astype(np.uint8)
    np.testing.assert_allclose(drawn(Image.fromarray(grey))[..., 1], grey / 255)
    clear = Image.fromarray(np.dstack([grey, grey, grey, np.zeros_like(grey)]))
    assert (drawn(clear) == 1).all()
    for mode in ("I", "F"):
        with pytest.raises(InputError, match=f"mode '{mode}', numbers without a declared range"):
            drawn(Image.fromarray(RAMP.astype(np.int32 if mode == "I" else np.float32)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_arrays_of_8_and_16_bits_know_their_white(dtype: Any) -> None:
    values = RAMP.astype(np.float64) / 65535
    array = np.round(values * np.iinfo(dtype).max).astype(dtype)
    for image in (array, array[..., None], np.dstack([array] * 3), torch.from_numpy(array.copy())):
        np.testing.assert_allclose(drawn(image), np.dstack([values] * 3), atol=0.5 / np.iinfo(dtype).max)


@pytest.mark.parametrize("dtype", [np.int32, np.int8, bool])
def test_other_integers_have_no_white(dtype: Any) -> None:
    with pytest.raises(InputError, match=r"dtype .*; expected floats in \[0, 1\], uint8 or uint16"):
        drawn(np.dstack([RAMP] * 3).astype(dtype))


def test_what_the_model_saw_is_drawn_as_the_photo_was() -> None:
    photo = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    mean, std = torch.tensor([0.4, 0.5, 0.6]), [0.2, 0.3, 0.1]
    seen = (photo - mean[:, None, None]) / torch.tensor(std)[:, None, None]
    expected = photo[0].permute(1, 2, 0).numpy()
    for given in (seen[0], seen[:1], seen[:1].double()):
        figure = plots.heatmap_figure({"input": torch.ones(1, 1, 5, 7)}, image=given, mean=mean, std=std)
        np.testing.assert_allclose(first(figure), expected, atol=1e-6)
    two = plots.heatmap_figure({"input": torch.ones(2, 1, 5, 7)}, image=seen, mean=mean, std=std)
    second = np.asarray(next(axes for axes in two.axes if axes.get_title() == "image 1").images[0].get_array())
    np.testing.assert_allclose(second, photo[1].permute(1, 2, 0).numpy(), atol=1e-6)
    with pytest.raises(InputError, match="give mean= and std="):
        drawn(seen[0])
    with pytest.raises(InputError, match=r"std is None; expected a number for each of 3 channels"):
        plots.heatmap_figure({"input": torch.ones(1, 1, 5, 7)}, image=seen[:1], mean=mean)


def test_bands_are_chosen() -> None:
    image = torch.rand(1, 6, 5, 7, generator=torch.Generator().manual_seed(1))
    with pytest.raises(InputError, match="image has 6 channels; say which are shown"):
        drawn(image)
    maps = {"input": torch.ones(1, 1, 5, 7)}
    three = first(plots.heatmap_figure(maps, image=image, bands=(4, 0, 2)))
    np.testing.assert_allclose(three, image[0, [4, 0, 2]].permute(1, 2, 0))
    grey = first(plots.heatmap_figure(maps, image=image, bands=5))
    np.testing.assert_allclose(grey, image[0, [5, 5, 5]].permute(1, 2, 0))
    for bands in (6, (0, 1), (0, 1, 6), "rgb"):
        with pytest.raises(InputError, match="expected one or three channels of 0 to 5"):
            plots.heatmap_figure(maps, image=image, bands=bands)  # type: ignore[arg-type]


def test_a_list_has_one_picture_for_each_image() -> None:
    photos = [Image.fromarray(np.full((5, 7, 3), value, np.uint8)) for value in (0, 51)]
    figure = plots.heatmap_figure({"input": torch.ones(2, 1, 5, 7)}, image=photos)
    levels = [np.asarray(axes.images[0].get_array()).mean() for axes in figure.axes if "image" in axes.get_title()]
    np.testing.assert_allclose(levels, [0.0, 0.2])
    with pytest.raises(InputError, match="2 pictures for 1 maps"):
        drawn(photos)


def test_names_that_no_font_can_draw(tmp_path: Path) -> None:
    labels = ["tea\ud800pot", "espresso", "cup"]
    assert titles(labels) == [name.replace("\ud800", "?") for name in titles(labels)]
    plots.save(result().figure(labels=labels), tmp_path / "a.png")
    sheet = plots.contact_sheet(torch.rand(2, 3, 5, 7), titles=labels[:2], title="\udcff")
    plots.save(sheet, tmp_path / "b.png")
    assert (tmp_path / "a.png").stat().st_size > 0
    assert (tmp_path / "b.png").stat().st_size > 0
