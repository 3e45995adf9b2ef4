"""Activations by forward hooks: many layers in one pass, without graph, ended after the last of them."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.errors import LayerError
from attribution.inputs.inputs import Inputs
from attribution.layers import LayerName
from attribution.running import torch_internals
from attribution.technique import Maps
from attribution.techniques import Activations
from attribution_hooks.capture import Captured, capture


class HooksActivations(Attributor[Activations]):
    """`Activations` from one forward, whatever the number of layers; no module after the last one runs."""

    technique_type: ClassVar[type[Activations]] = Activations
    backend: ClassVar[str] = "hooks"
    only_shows: ClassVar[bool] = True

    def image_bytes(self, model: nn.Module, technique: Activations, inputs: Inputs) -> int:
        """What is widest in a forward without graph; the maps themselves are the answer."""
        return 2 * layers.peak_bytes(model, inputs)  # four maps meet where branches do

    def compute(self, run: Run[Activations]) -> Maps:
        """Every layer's output, kept before the network goes on; of a reduced one the mean alone is kept."""
        names, reduced = run.technique.layers, run.technique.reduce == "mean"
        caught, refused = self._caught(run, stop=layers.run_once(run.model, run.inputs, names))
        maps = None if refused or not caught.intact else _maps(run, caught)
        if maps is not None:
            return maps
        caught, refused = self._caught(run, stop=False)  # also where a model shows its layers a batch in parts
        if refused:
            raise refused[0]
        if reduced:
            return {name: caught[name] for name in names}
        return {name: _examples_first(run, name, caught[name]) for name in names}

    def _caught(self, run: Run[Activations], *, stop: bool) -> tuple[Captured, list[LayerError]]:
        reduced = run.technique.reduce == "mean"
        refused: list[LayerError] = []

        def mean(name: LayerName, output: Tensor) -> Tensor:
            try:
                axes = run.technique.axes(run.model, run.inputs, name.text, tuple(output.shape))
            except LayerError as error:  # not here: inside a forward it would pass for the model's own
                refused.append(error)
                return output.clone()
            places = [axis for axis in range(output.ndim) if axis not in (axes.examples, axes.channels)]
            found = output.mean(dim=places, dtype=torch.promote_types(output.dtype, torch.float32))
            return found if axes.examples < axes.channels else found.T

        mode = torch.is_grad_enabled()
        try:
            torch_internals.set_gradients(False)  # torch's own block passes seven functions
            with capture(run.model, run.technique.layers, stop=stop, keep=mean if reduced else None) as caught:
                run.forward(run.inputs)
        finally:
            torch_internals.set_gradients(mode)
        return caught, refused


def _maps(run: Run[Activations], caught: Captured) -> Maps | None:
    """What the layers gave for all examples, or their means; ``None`` where one gave something else."""
    maps = {name: caught[name] for name in run.technique.layers}
    if run.technique.reduce == "mean":
        whole = all(each.shape[:1] == (len(run.inputs),) and each.ndim == 2 for each in maps.values())
        return maps if whole else None
    try:
        return {name: _examples_first(run, name, output) for name, output in maps.items()}
    except LayerError:
        return None


def _examples_first(run: Run[Activations], name: str, output: Tensor) -> Tensor:
    axes = run.technique.axes(run.model, run.inputs, name, tuple(output.shape))
    if not axes.examples:
        return output
    run.note(f"axes {name}", "(L, N, D), given as (N, L, D)")
    return output.transpose(0, 1)
