"""Score-CAM by captured activations, and a forward for each channel's mask."""

from typing import ClassVar

from torch import Tensor

from attribution.attributor import Run
from attribution.techniques import ScoreCAM
from attribution_hooks.cam.forwards import ForwardCam, Seen
from attribution_hooks.cam.masked import scores


class HooksScoreCAM(ForwardCam[ScoreCAM]):
    """`ScoreCAM`: all targets of a channel from one forward, and all constant channels from one."""

    technique_type: ClassVar[type[ScoreCAM]] = ScoreCAM

    def weights(self, run: Run[ScoreCAM], seen: Seen) -> Tensor:
        """A softmax over the channels."""
        return scores(run, seen).softmax(dim=2)
