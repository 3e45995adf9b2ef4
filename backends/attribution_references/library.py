"""What attributors over libraries that hook modules have in common: layers to hook, and something for a model."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Run
from attribution.errors import BackendNotInstalledError, InputError, LayerError
from attribution.techniques import ScoreCAM
from attribution.techniques.cam.by_channel import CAMByChannel


def needed(module: str, extra: str, *, within: str = "") -> Callable[[], Any]:
    """A function that imports a library (``within``: a module of it), which takes seconds; it must be installed now.

    Raises:
        BackendNotInstalledError: It is not.
    """
    if find_spec(module) is None:
        raise BackendNotInstalledError(
            f"needs {module}, which is not installed: pip install 'torch-attribution[{extra}]'"
        )

    def library() -> Any:
        with warnings.catch_warnings():  # sklearn adds filters of its own, which are the process's
            return import_module(f"{module}.{within}".rstrip("."))

    return library


@dataclass(frozen=True)
class Layer:
    """A layer for a library to hook.

    Attributes:
        name: As the user writes it.
        module: Of the isolated model.
        reshape: The libraries' ``reshape_transform``; ``None`` where the layer gives (N, D, *places) itself.
    """

    name: str
    module: nn.Module
    reshape: Callable[[Tensor], Tensor] | None


def hooked(run: Run[Any], text: str) -> Layer:
    """A layer of the isolated model by its name.

    Raises:
        InputError: The channels are kept, and a reference adds them up.
        LayerError: It is none that gives one tensor in one run, or has no two or three axes of places.
        ModelError: The model fails before it.
    """
    if isinstance(run.technique, CAMByChannel) and run.technique.by_channel:
        raise InputError(
            f"{type(run.technique).__name__}.channels is 'none', and a reference adds channels up; use 'sum'"
        )
    name, module = layers.find(run.model, text)
    if name.keys or name.entry or name.call is not None:
        raise LayerError(f"layer {text!r}: a reference takes outputs of whole layers; use backend='hooks'")
    calls = next((stop.calls for stop in layers.survey(run.model, run.inputs) if stop.module is module), 0)
    if not calls:
        raise layers.missing(run.model, run.inputs, layers.never_ran(text))
    if calls > 1:
        raise layers.runs_often(name, calls)
    shape = layers.alone(run.model, run.inputs, text)
    if shape is None:
        raise LayerError(f"layer {text!r} gives no tensor, and a reference takes nothing else")
    grid = run.technique.grid(text, shape, run.model, run.inputs[:1])
    if len(grid.places) not in (2, 3):
        raise LayerError(
            f"layer {text!r} gives {grid}, and a reference takes maps of images and volumes; use backend='hooks'"
        )
    for key, note in run.technique.notes({text: grid}, run.inputs).items():
        run.note(key, note)
    return Layer(text, module, None if grid.plain else grid.map)


class Facade(nn.Module):
    """What a library is given for a model: it sets modes of it and looks for its device, and the run is ours.

    Args:
        device: Of the inputs.
        layer: For a library that looks layers up by name.
    """

    def __init__(self, device: torch.device, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.empty(0, device=device))
        self.layer = layer


class MaskedInputs(Facade):
    """What a library is given that asks for the scores of one example behind its masks.

    Args:
        run: Of the call.
        layer: Whose channels are the masks.
        example: Its place.

    Raises:
        LayerError: No explained input has the layer's axes of places.
    """

    def __init__(self, run: Run[ScoreCAM], layer: Layer, example: int) -> None:
        super().__init__(run.inputs.device, layer.module)
        self.eval()
        self._run, self._example = run, torch.tensor([example], device=run.inputs.device)
        shape = layers.alone(run.model, run.inputs, layer.name)
        assert shape is not None  # else `hooked` has refused it
        grid = run.technique.grid(layer.name, shape, run.model, run.inputs[:1])
        self._name = run.technique.seen_through(layer.name, grid, run.inputs)

    @property
    def shown(self) -> Tensor:
        """(1, C, *places), what is masked."""
        image: Tensor = self._run.inputs[self._example].values[self._name]
        return image

    def forward(self, masked: Tensor) -> Tensor:
        """(B, T), the scores of B masked inputs."""
        examples = self._example.expand(len(masked))
        shown = self._run.inputs[examples].replaced({self._name: masked})
        return self._run.scores(self._run.forward(shown, examples), examples)
