"""Activations by forward hooks: many layers in one pass, without graph, ended after the last of them."""

from typing import ClassVar

import torch

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.technique import Maps
from attribution.techniques import Activations
from attribution_hooks.capture import capture


class HooksActivations(Attributor[Activations]):
    """`Activations` from one forward, whatever the number of layers; no module after the last one runs."""

    technique_type: ClassVar[type[Activations]] = Activations
    backend: ClassVar[str] = "hooks"

    def compute(self, run: Run) -> Maps:
        """Every layer's output, kept before the network goes on with a copy."""
        names = self.technique.layers
        once = layers.run_once(run.model, run.inputs, names)
        with torch.no_grad(), capture(run.model, names, stop=once) as caught:
            run.call(run.inputs)
        return {name: caught[name] for name in names}
