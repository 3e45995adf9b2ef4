"""Ablation-CAM by captured activations, and forwards with a channel set to zero where no closed form tells."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from attribution.attributor import Run
from attribution.techniques import AblationCAM
from attribution_hooks.cam.ablations import losses, thinkable
from attribution_hooks.cam.forwards import ForwardCam, Seen
from attribution_hooks.cam.trunk import Trunk


class HooksAblationCAM(ForwardCam[AblationCAM]):
    """`AblationCAM`: all targets of a channel from one forward."""

    technique_type: ClassVar[type[AblationCAM]] = AblationCAM

    def trunks(self, run: Run[AblationCAM]) -> Mapping[str, Trunk]:
        """Of layers before which a closed form may be proved, as far as they take half of the budget together."""
        found, left = dict[str, Trunk](), run.execution.budget // 2
        for layer in (layer for layer in run.technique.layers if thinkable(run, layer)):
            trunk = Trunk(run, layer)
            if (size := trunk.bytes * len(run.inputs)) <= left:
                found[layer], left = trunk, left - size
        return found

    def weights(self, run: Run[AblationCAM], seen: Seen) -> Tensor:
        """What is lost, as a part of |score|."""
        assert run.clean is not None  # beside the layer that was seen
        clean, largest = run.clean.to(run.inputs.device), run.extras["largest_score"]
        run.extras |= run.technique.told(seen.name, seen.map.to(clean.device), clean, largest)
        lost = losses(run, seen)
        return lost / run.clean.abs()[..., None].to(lost)
