"""Ablation-CAM by captured activations, and forwards with a channel set to zero where no closed form tells."""

from typing import ClassVar

from torch import Tensor

from attribution.attributor import Run
from attribution.techniques import AblationCAM
from attribution_hooks.cam.ablations import losses
from attribution_hooks.cam.forwards import ForwardCam, Seen


class HooksAblationCAM(ForwardCam[AblationCAM]):
    """`AblationCAM`: all targets of a channel from one forward."""

    technique_type: ClassVar[type[AblationCAM]] = AblationCAM

    def weights(self, run: Run[AblationCAM], seen: Seen) -> Tensor:
        """What is lost, as a part of |score|."""
        assert run.clean is not None  # beside the layer that was seen
        clean, largest = run.clean.to(run.inputs.device), run.extras["largest_score"]
        run.extras |= run.technique.told(seen.name, seen.map.to(clean.device), clean, largest)
        lost = losses(run, seen)
        return lost / run.clean.abs()[..., None].to(lost)
