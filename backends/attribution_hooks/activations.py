"""Activations by forward hooks: many layers in one pass, without graph, ended after the last of them."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.inputs.inputs import Inputs
from attribution.layers import LayerName
from attribution.technique import Maps
from attribution.techniques import Activations
from attribution_hooks.capture import Captured, capture


class HooksActivations(Attributor[Activations]):
    """`Activations` from one forward, whatever the number of layers; no module after the last one runs."""

    technique_type: ClassVar[type[Activations]] = Activations
    backend: ClassVar[str] = "hooks"

    def image_bytes(self, model: nn.Module, technique: Activations, inputs: Inputs) -> int:
        """What is widest in a forward without graph; the maps themselves are the answer."""
        return 2 * layers.peak_bytes(model, inputs)  # four maps meet where branches do

    def compute(self, run: Run[Activations]) -> Maps:
        """Every layer's output, kept before the network goes on; of a reduced one the mean alone is kept."""
        names, images = run.technique.layers, len(run.inputs)
        caught = self._caught(run, stop=layers.run_once(run.model, run.inputs, names))
        if not (caught.intact and all(caught[name].shape[:1] == (images,) for name in names)):
            caught = self._caught(run, stop=False)  # also where a model shows its layers a batch in parts
        for name in names:
            layers.per_image(name, caught[name].shape, images)
        return {name: caught[name] for name in names}

    def _caught(self, run: Run[Activations], *, stop: bool) -> Captured:
        reduced = run.technique.reduce == "mean"
        flat: list[tuple[str, tuple[int, ...]]] = []

        def mean(name: LayerName, output: Tensor) -> Tensor:
            if output.ndim != 4:
                flat.append((name.text, tuple(output.shape)))
                return output.clone()
            return output.mean(dim=(2, 3), dtype=torch.promote_types(output.dtype, torch.float32))

        with torch.no_grad(), capture(run.model, run.technique.layers, stop=stop, keep=mean if reduced else None) as c:
            run.forward(run.inputs)
        if flat:
            raise layers.no_space(*flat[0])
        return c
