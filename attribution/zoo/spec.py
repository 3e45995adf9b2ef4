"""A model written as text: where it comes from, a colon, its name."""

import warnings
from pathlib import Path

import torch

from attribution.errors import ModelError, nearest
from attribution.zoo.bundled import load_bundled, specs
from attribution.zoo.loaded import LoadedModel
from attribution.zoo.script import load_script
from attribution.zoo.timm_models import load_timm
from attribution.zoo.torchvision_models import load_torchvision

_FORMS = f"{specs()}, torchvision:NAME, timm:NAME or FILE.py:FUNCTION"


def load(spec: str, *, weights: str | Path | None = None) -> LoadedModel:
    """A classifier with the transform that belongs to its weights, and its class names.

    Nothing is downloaded for the bundled models and those of a file. torchvision's and timm's weights come from
    their caches or are downloaded there; without network that fails after one attempt. torch's random numbers
    are as they were before.

    Args:
        spec: ``bundled:squeezenet1_1`` or ``bundled:efficientnet_lite0`` (weights in installed packages),
            ``torchvision:NAME``, ``timm:NAME``, or ``FILE.py:FUNCTION``, where the function takes no arguments
            and returns an ``nn.Module`` or a ``LoadedModel``. A Python file runs with your rights.
        weights: path of a file to take the weights from instead of the published ones: safetensors, or a state dict
            or checkpoint that ``torch.save`` wrote. It is read without running code. The transform stays that of the
            published weights, and so do class names; a file of another number of classes makes the model with as many,
            whose names are unknown.

    Returns:
        The model in eval mode on the CPU.

    Raises:
        ModelError: the spec is not understood, a package or file is missing, the weights cannot be downloaded,
            have been changed, are no plain tensors, or do not fit the model.
    """
    if not isinstance(spec, str):
        raise ModelError(f"a model is written as text such as {specs()}; found a {type(spec).__name__}")
    try:
        path = None if weights is None else Path(weights)
    except TypeError as error:
        raise ModelError(
            f"weights is {type(weights).__name__}; give the path of a .pth, .pt or .safetensors file"
        ) from error
    with torch.device("cpu"):  # whatever the default device is
        return _load(spec, path)


def _load(spec: str, weights: Path | None) -> LoadedModel:
    file, _, function = spec.rpartition(":")
    if file.endswith(".py") and function:
        return load_script(Path(file), function, weights)
    source, _, name = spec.partition(":")
    with warnings.catch_warnings(action="ignore"), torch.random.fork_rng(devices=[]):
        match source:
            case "bundled":
                if weights is not None:
                    raise ModelError(f"{spec} brings its own weights; take --weights away, or name torchvision:NAME")
                return load_bundled(name)
            case "torchvision":
                return load_torchvision(name, weights)
            case "timm":
                return load_timm(name, weights)
    raise ModelError(f"no model {spec!r}{_hint(spec)}; a model is written {_FORMS}".replace("?; a model", "? A model"))


def _hint(spec: str) -> str:
    """What was probably meant."""
    if spec.endswith(".py"):
        return f": name the function that makes the model, as in {spec}:make_model"
    if spec.endswith((".pth", ".pt", ".safetensors")):
        return ": that is a weights file; name the architecture and pass the file with --weights"
    import torchvision.models as zoo

    known = [*specs().split(", "), *(f"torchvision:{name}" for name in zoo.list_models(module=zoo))]
    same = [full for full in known if full.partition(":")[2] == spec.lower()]
    return f"; did you mean {' or '.join(map(repr, same))}?" if same else nearest(spec.lower(), known)
