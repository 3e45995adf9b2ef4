"""A model that a function in somebody's Python file returns."""

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attribution import paths
from attribution.errors import ModelError, nearest
from attribution.running.execution import first_line
from attribution.zoo import labels
from attribution.zoo.loaded import LoadedModel
from attribution.zoo.torchvision_models import in_words
from attribution.zoo.weights import fill, read_state

if TYPE_CHECKING:
    from PIL import Image

_GREY_MEAN, _GREY_STD = (0.449,), (0.226,)  # the middles of ImageNet's three


def load_script(path: Path, function: str, weights: Path | None) -> LoadedModel:
    """``FILE.py:FUNCTION``: what the function returns, called without arguments.

    The file runs with the rights of its user, as ``python FILE.py`` would. A bare module gets the usual ImageNet
    transform (shorter side to 256, middle 224 × 224), in grey if it fails in colour and its first convolution takes one
    channel, and, if it returns 1000 logits, the ImageNet class names.

    Raises:
        ModelError: there is no such file or function, one of them fails, or the function returns neither an
            ``nn.Module`` nor a ``LoadedModel``.
    """
    if fault := paths.fault(path):
        told = f"no file {paths.named(path)}" if fault == paths.MISSING else f"{paths.named(path)} {fault}"
        raise ModelError(f"{told}; a model from a file is written FILE.py:FUNCTION")
    with _import_path(path.resolve().parent):
        made = _call(_execute(path), function, path)
    loaded = made if isinstance(made, LoadedModel) else None
    model = loaded.model if loaded else made
    if not isinstance(model, nn.Module):
        raise ModelError(f"{path}:{function} returned {type(made).__name__}; expected nn.Module or LoadedModel")
    name = f"{path}:{function}"
    with _told(f"the model that {name}() returned cannot be put on the CPU and into eval mode"):
        if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
            raise ModelError(
                f"{name}() returned a model on the meta device, which has no values; build it on the CPU, or call "
                "model.to_empty(device='cpu') and load its weights in the function"
            )
        model = model.cpu().eval()
    if weights is not None:
        with _told(f"the weights {weights} cannot be loaded into the model that {name}() returned"):
            fill(model, read_state(weights), str(weights))
    return replace(loaded, name=name, model=model) if loaded else _described(name, model)


def load_function(path: Path, function: str) -> Callable[..., Any]:
    """A function of a Python file, which is not called.

    Raises:
        ModelError: There is no such file or function, or the file fails.
    """
    if fault := paths.fault(path):
        told = f"no file {paths.named(path)}" if fault == paths.MISSING else f"{paths.named(path)} {fault}"
        raise ModelError(f"{told}; a function of a file is written FILE.py:FUNCTION")
    with _import_path(path.resolve().parent):
        return _found(_execute(path), function, path)


@dataclass(frozen=True)
class Grey:
    """A transform that is shown photos in grey, of mode ``L``."""

    transform: "Callable[[Image.Image], Tensor]"

    def __call__(self, photo: "Image.Image") -> Tensor:
        """(1, H, W)."""
        return self.transform(photo.convert("L"))


def _described(name: str, model: nn.Module) -> LoadedModel:
    from torchvision.models import ResNet18_Weights

    usual = ResNet18_Weights.IMAGENET1K_V1.transforms
    output = _output(model)
    grey = output is None and _channels(model) == 1
    transform = usual(mean=_GREY_MEAN, std=_GREY_STD) if grey else usual()
    return LoadedModel(
        name=name,
        model=model,
        transform=Grey(transform) if grey else transform,
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        labels=labels.imagenet() if isinstance(output, Tensor) and output.shape == (1, 1000) else None,
        assumed=f"{name} returned a bare network; assumed: {'photos in grey, ' * grey}{in_words(transform)}",
    )


def _output(model: nn.Module) -> object:
    """What the model says of black in colour; ``None`` where it fails."""
    try:
        with torch.no_grad():
            found: object = model(torch.zeros(1, 3, 224, 224, device="cpu"))
    except KeyboardInterrupt:
        raise
    # A foreign model may refuse this input in any way, also by exit(); then its classes are simply unknown.
    except BaseException:
        return None
    return found


def _channels(model: nn.Module) -> int | None:
    """Of the input, by the first convolution that the model registers."""
    return next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), None)


def _execute(path: Path) -> ModuleType:
    # A name of its own for each file, so that two called model.py do not replace each other.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = spec_from_file_location(f"{path.stem}_{digest}", path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path} is no Python file")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look their own module up by name
    try:
        with _told(f"{path} fails"):
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(spec.name, None)
        raise
    return module


def _found(module: ModuleType, function: str, path: Path) -> Callable[..., Any]:
    with _told(f"{path} fails"):
        found = getattr(module, function, None)
    if not callable(found):
        functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise ModelError(f"{path} has no function {function!r}{nearest(function, functions)}")
    return found  # type: ignore[no-any-return]


def _call(module: ModuleType, function: str, path: Path) -> object:
    make = _found(module, function, path)
    if needed := _needed(make):
        filled = ", ".join(f"{name}=…" for name in needed)
        raise ModelError(
            f"{path}:{function} needs {', '.join(needed)}; name a function that needs nothing and returns the model, "
            f"such as make_model: def make_model(): return {function}({filled})"
        )
    with _told(f"{path}:{function}() fails"):
        made: object = make()
    return made


def _needed(make: Callable[..., Any]) -> list[str]:
    """The arguments without which it cannot be called, as far as it tells."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind not in kinds]


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Around a stranger's code: whatever it raises becomes a `ModelError`, its exit() too; an interrupt passes."""
    try:
        yield
    except (ModelError, KeyboardInterrupt):
        raise
    except BaseException as error:
        kind = f"it calls exit({error.code!r})" if isinstance(error, SystemExit) else type(error).__name__
        said = first_line(error)
        told = kind if isinstance(error, SystemExit) else said if said.startswith(kind) else f"{kind}: {said}"
        raise ModelError(f"{what}: {told}") from error


@contextmanager
def _import_path(folder: Path) -> Iterator[None]:
    """Let the file import its neighbours, as it could if it were run."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
