"""Photos to try things with, from an installed package."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from attribution.errors import InputError, nearest

if TYPE_CHECKING:
    from PIL import Image

# Those that lie in the package itself; scikit-image downloads its others on first use.
_FILES = {
    "astronaut": "astronaut.png",
    "camera": "camera.png",
    "chelsea": "chelsea.png",
    "clock_motion": "clock_motion.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "hubble_deep_field": "hubble_deep_field.jpg",
    "moon": "moon.png",
    "motorcycle_left": "motorcycle_left.png",
    "motorcycle_right": "motorcycle_right.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}

DISTINCT = tuple(name for name in _FILES if name != "motorcycle_right")
"""Those that show different things: of the two views of one motorcycle the first."""


def sample_photo(name: str = "coffee") -> "Image.Image":
    """A photo that comes with scikit-image; nothing is downloaded.

    Args:
        name: one of ``astronaut``, ``camera``, ``chelsea``, ``clock_motion``, ``coffee``, ``coins``,
            ``hubble_deep_field``, ``moon``, ``motorcycle_left``, ``motorcycle_right``, ``retina``, ``rocket``.

    Returns:
        An image of mode ``RGB``.

    Raises:
        InputError: there is no such photo, or scikit-image (extra ``demo``) is not installed.
    """
    from PIL import Image

    if name not in _FILES:
        raise InputError(f"no sample photo {name!r}{nearest(name, _FILES)}; there are: {', '.join(_FILES)}")
    package = find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise InputError("the sample photos need scikit-image; pip install 'torch-attribution[demo]'")
    path = Path(package.submodule_search_locations[0], "data", _FILES[name])
    if not path.is_file():
        raise InputError(f"no {path}: this scikit-image does not carry the photo {name!r}; take another")
    with Image.open(path) as image:
        return image.convert("RGB")
