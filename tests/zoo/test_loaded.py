import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from attribution import zoo
from attribution.errors import InputError, ModelError, TargetError


def tiny(mean: tuple[float, ...] = (0.1, 0.2, 0.3), std: tuple[float, ...] = (0.5, 0.4, 0.25)) -> zoo.LoadedModel:
    """Crops the middle 2 × 3 of a photo."""

    def transform(photo: Image.Image) -> Tensor:
        left, top = (photo.width - 3) // 2, (photo.height - 2) // 2
        values = np.array(photo.crop((left, top, left + 3, top + 2)), dtype=np.float32).reshape(2, 3, len(mean)) / 255
        return ((torch.from_numpy(values) - torch.tensor(mean)) / torch.tensor(std)).movedim(-1, 0)

    return zoo.LoadedModel("tiny", nn.Identity(), transform, mean, std, ("crane", "cat", "Crane"))


def test_picture_shows_the_middle_of_the_photo(squeezenet: zoo.LoadedModel) -> None:
    photo = zoo.sample_photo("coffee")
    scaled = photo.resize((384, 256), Image.Resampling.BILINEAR)
    shown = np.asarray(scaled.crop((80, 16, 304, 240)), dtype=np.float32) / 255
    picture = squeezenet.picture(squeezenet.inputs(photo))
    assert picture.shape == (1, 224, 224, 3)
    assert picture.dtype == np.float32
    np.testing.assert_allclose(picture[0], shown, atol=1e-5)
    assert np.abs(picture[0] - shown[:, ::-1]).max() > 0.1


def test_picture_clips_and_keeps_its_input() -> None:
    inputs = torch.tensor([-9.0, 0.0, 9.0]).view(1, 3, 1, 1).requires_grad_()
    assert tiny().picture(inputs).tolist() == [[[[0.0, pytest.approx(0.2), 1.0]]]]
    assert inputs.tolist() == [[[[-9.0]], [[0.0]], [[9.0]]]]


def test_picture_of_one_channel_is_grey() -> None:
    picture = tiny((0.5,), (0.5,)).picture(torch.tensor([[[[-1.0, 0.0]]]]))
    assert picture.tolist() == [[[[0.0] * 3, [0.5] * 3]]]


def test_picture_refuses_other_shapes() -> None:
    for shape in ((3, 2, 2), (1, 4, 2, 2)):
        with pytest.raises(InputError, match=r"expected \(N, 3, H, W\)"):
            tiny().picture(torch.zeros(shape))


def test_stretch_keeps_what_the_crop_cuts_off() -> None:
    photo = Image.new("RGB", (90, 20), "red")
    photo.paste("blue", (30, 0, 60, 20))
    whole = tiny().picture(tiny().inputs(photo, stretch=True))[0]
    assert whole.shape == (2, 3, 3)
    np.testing.assert_allclose(whole[:, 0], [[1, 0, 0]] * 2, atol=0.2)
    np.testing.assert_allclose(whole[:, 1], [[0, 0, 1]] * 2, atol=0.3)
    np.testing.assert_allclose(whole[:, 2], [[1, 0, 0]] * 2, atol=0.2)
    cropped = tiny().picture(tiny().inputs(photo))[0]
    np.testing.assert_allclose(cropped, np.broadcast_to([0.0, 0.0, 1.0], (2, 3, 3)), atol=1e-6)


def test_stretch_normalises_as_the_transform_does(squeezenet: zoo.LoadedModel) -> None:
    photo = zoo.sample_photo("coffee").resize((224, 224), Image.Resampling.BILINEAR)
    expected = (np.asarray(photo, dtype=np.float64) / 255 - squeezenet.mean) * 255
    inputs = squeezenet.inputs(zoo.sample_photo("coffee"), stretch=True)
    assert inputs.shape == (1, 3, 224, 224)
    np.testing.assert_allclose(inputs[0].movedim(0, -1).numpy(), expected, atol=1e-3)


def test_grey_photos_become_what_the_model_takes() -> None:
    grey = Image.new("L", (5, 4), 51)
    np.testing.assert_allclose(tiny().picture(tiny().inputs(grey)), 0.2, atol=1e-6)
    one = tiny((0.5,), (0.5,))
    assert one.inputs(grey, stretch=True).shape == (1, 1, 2, 3)
    np.testing.assert_allclose(one.picture(one.inputs(grey)), 0.2, atol=1e-6)


def test_photos_that_cannot_be_transformed() -> None:
    with pytest.raises(InputError, match=r"mode 'RGBA'; expected 'RGB': read it with attribution\.images\.read"):
        tiny().inputs(Image.new("RGBA", (9, 9)))
    with pytest.raises(InputError, match="1 × 2000, more than 50 times"):
        tiny().inputs(Image.new("RGB", (1, 2000)))
    assert tiny().inputs(Image.new("RGB", (1, 2000)), stretch=True).shape == (1, 3, 2, 3)


def test_a_transform_that_returns_no_tensor() -> None:
    broken = zoo.LoadedModel("broken", nn.Identity(), lambda photo: photo, (0.0,) * 3, (1.0,) * 3, None)  # type: ignore[arg-type,return-value]
    with pytest.raises(ModelError, match=r"the transform of broken returned Image; expected a float tensor"):
        broken.inputs(Image.new("RGB", (9, 9)))


def test_top_is_the_softmax_best_first() -> None:
    logits = torch.tensor([[0.0, np.log(3.0), np.log(4.0)], [np.log(2.0), 0.0, 0.0]])
    first, second = tiny().top(logits, k=2)
    assert [(label, index) for label, index, _ in first] == [("Crane", 2), ("cat", 1)]
    assert [value for *_, value in first] == pytest.approx([0.5, 0.375])
    assert second[0][:2] == ("crane", 0)
    assert second[0][2] == pytest.approx(0.5)
    assert len(tiny().top(logits)[0]) == 3
    with pytest.raises(InputError, match="expected"):
        tiny().top(logits[0])


def test_label_and_index_of_a_class() -> None:
    assert tiny().label(1) == "cat"
    assert tiny().index("CAT") == 1
    with pytest.raises(TargetError, match="no class 3; classes of tiny count from 0 to 2"):
        tiny().label(3)
    nameless = zoo.LoadedModel("nameless", nn.Identity(), lambda photo: torch.zeros(3, 1, 1), (0.0,), (1.0,), None)
    assert nameless.label(7) == "class 7"
    assert nameless.index("7") == 7
    with pytest.raises(TargetError, match="no class -1"):
        nameless.label(-1)
