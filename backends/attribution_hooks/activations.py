"""Activations by forward hooks: many layers in one pass, without graph."""

from typing import ClassVar

import torch

from attribution.attributor import Attributor, Run
from attribution.technique import Maps
from attribution.techniques import Activations
from attribution_hooks.capture import capture


class HooksActivations(Attributor[Activations]):
    """`Activations` from one forward, whatever the number of layers."""

    technique_type: ClassVar[type[Activations]] = Activations
    backend: ClassVar[str] = "hooks"

    def compute(self, run: Run) -> Maps:
        """Every layer's output, kept before the network goes on with a copy."""
        with torch.no_grad(), capture(run.model, self.technique.layers) as caught:
            run.model(run.inputs.clone())
            return {layer: caught[layer] for layer in self.technique.layers}
