"""Activations by Captum's ``LayerActivation``."""

from typing import ClassVar

from captum.attr import LayerActivation

from attribution.attributor import Attributor, Run
from attribution.technique import Maps
from attribution.techniques import Activations
from attribution_captum.layer import check, modules, typed


class CaptumActivations(Attributor[Activations]):
    """`Activations` from one full forward of ``LayerActivation`` over a list of layers."""

    technique_type: ClassVar[type[Activations]] = Activations
    backend: ClassVar[str] = "captum"

    def compute(self, run: Run) -> Maps:
        """Every layer's output, which Captum clones before the network goes on."""
        names = self.technique.layers
        asked = modules(run.model, names)
        check(run.model, names, run.inputs)
        with typed():
            values = LayerActivation(run.call, asked).attribute(run.inputs)
        return dict(zip(names, values, strict=True))
