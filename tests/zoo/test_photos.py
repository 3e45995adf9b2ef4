import numpy as np
import pytest
import skimage.data

from attribution import zoo
from attribution.errors import InputError
from attribution.images import samples as photos


def test_the_photo_is_the_packages_own() -> None:
    np.testing.assert_array_equal(np.asarray(zoo.sample_photo()), skimage.data.coffee())
    np.testing.assert_array_equal(np.asarray(zoo.sample_photo("chelsea")), skimage.data.chelsea())


@pytest.mark.parametrize("name", photos._FILES)
def test_every_photo_is_there(name: str) -> None:
    photo = zoo.sample_photo(name)
    assert photo.mode == "RGB"
    assert min(photo.size) >= 224
    assert np.asarray(photo).std() > 10


def test_unknown_names_and_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no sample photo 'cofee'; nearest: 'coffee', 'chelsea'; there are: astronaut"):
        zoo.sample_photo("cofee")
    monkeypatch.setattr(photos, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'torch-attribution\[demo\]'"):
        zoo.sample_photo()
