"""Other libraries as contestants; a new one is one more entry of `PEERS`."""

from typing import get_args

from benchmarks.cases import Case, cases
from benchmarks.models import missing
from benchmarks.peers.captum_averages import CaptumIntegratedGradients, CaptumSmoothGrad
from benchmarks.peers.captum_gradients import CaptumGradientShap, CaptumGuidedBackprop
from benchmarks.peers.captum_tuned import CaptumActivations, CaptumGradCAM, CaptumOcclusion
from benchmarks.peers.dense import DenseEngine
from benchmarks.peers.floor import Floor
from benchmarks.peers.lucent import Lucent
from benchmarks.peers.peer import Peer, Tier
from benchmarks.peers.pytorch_grad_cam import PytorchCAMs, PytorchGradCAM
from benchmarks.peers.torchcam import TorchCAM
from benchmarks.questions import FAMILY_OCCLUSION, FOUR_CAMS, LINES, STATISTICS, Size

_ACTIVATIONS = ("activations, one early layer", "activations, one middle layer")
_GRAD_CAM = ("grad_cam, 1 target",)
_CAMS = (
    *_GRAD_CAM,
    *("layer_cam, 1 target", "hires_cam, 1 target", "xgrad_cam, 1 target"),
    *("eigen_cam, layer1", "eigen_cam, layer4"),
)
_OCCLUSION = ("occlusion, 224 px, window 40, stride 20",)
_GUIDED = ("guided_backprop, 1 target",)
_SHAP = ("gradient_shap, 20 samples",)
_QUICK = ("ResNet-50", "MobileNetV2", "SqueezeNet 1.1")
_FLOORS = (
    *_ACTIVATIONS,
    "grad_cam, 1 target",
    "grad_cam, 3 layers × 3 targets",
    "grad_cam, all classes",
    "filter_visualization, 1 filter",
    "filter_visualization, 64 filters",
)
_BRIEF: tuple[Tier, ...] = ("default", "tuned")
_BRIEF_MODELS = ("ResNet-18", "ResNet-50", "VGG16")
"""What there is time for on a rented device: no compiling, no floors, and a few models."""
_FILTERS = ("filter_visualization, 1 filter", "filter_visualization, 64 filters")

PEERS: tuple[Peer, ...] = (
    Floor(questions=_FLOORS, models=("VGG16", "ResNet-50", "SqueezeNet 1.1")),
    Floor(questions=("eigen_cam, layer1", "eigen_cam, layer4"), models=("ResNet-18",)),
    DenseEngine(questions=(FAMILY_OCCLUSION,)),
    DenseEngine(questions=_OCCLUSION, accelerated=True),
    CaptumActivations(tier="default", questions=_ACTIVATIONS, models=_QUICK),
    CaptumActivations(tier="tuned", questions=_ACTIVATIONS, models=_QUICK),
    CaptumGradCAM(tier="default", questions=_GRAD_CAM, models=_QUICK),
    CaptumGradCAM(tier="tuned", questions=_GRAD_CAM, models=_QUICK),
    CaptumGradCAM(tier="compiled", questions=_GRAD_CAM, models=("ResNet-50",)),
    PytorchGradCAM(tier="default", questions=_CAMS),
    TorchCAM(tier="default", questions=_GRAD_CAM),
    PytorchCAMs(tier="default", questions=(FOUR_CAMS,)),
    CaptumIntegratedGradients(tier="default", questions=tuple(LINES.values())),
    CaptumIntegratedGradients(tier="tuned", questions=tuple(LINES.values())),
    CaptumSmoothGrad(tier="default", questions=(STATISTICS,)),
    CaptumSmoothGrad(tier="tuned", questions=(STATISTICS,)),
    CaptumOcclusion(tier="default", questions=_OCCLUSION, models=_QUICK),
    CaptumOcclusion(tier="tuned", questions=_OCCLUSION, models=_QUICK),
    CaptumOcclusion(tier="compiled", questions=_OCCLUSION, models=("ResNet-50",)),
    CaptumGuidedBackprop(tier="default", questions=_GUIDED),
    CaptumGuidedBackprop(tier="tuned", questions=_GUIDED),
    CaptumGradientShap(tier="default", questions=_SHAP),
    CaptumGradientShap(tier="tuned", questions=_SHAP),
    Lucent(tier="default", questions=_FILTERS, models=_QUICK),
    Lucent(tier="tuned", questions=_FILTERS, models=_QUICK),
)
"""In the order in which their rows stand."""


def entries(size: Size, device: str, technique: str | None = None, model: str | None = None) -> list[tuple[Case, Peer]]:
    """Who runs what: case by case, so that a case's rows share its answer; in smoke size one case per peer."""
    tiers = _BRIEF if size == "device" else get_args(Tier)
    present = [peer for peer in PEERS if peer.missing() is None and peer.tier in tiers]
    found = []
    taken: set[int] = set()
    for case in cases(size, device, technique, model):
        if missing(case.model):
            continue
        for index, peer in enumerate(present):
            if size == "device" and (case.model not in _BRIEF_MODELS or case.dtype != "float32"):
                continue
            if peer.asked(case, device) and not peer.refuses(case, device) and (size != "smoke" or index not in taken):
                taken.add(index)
                found.append((case, peer))
    return found


def left_out(size: Size, device: str, technique: str | None = None, model: str | None = None) -> list[str]:
    """One line per peer that is missing, and per reason for which one refuses cases."""
    lines = []
    for peer in PEERS:
        asked = [case for case in cases(size, device, technique, model) if peer.asked(case, device)]
        reason = peer.missing() if asked else None
        refused = {peer.refuses(case, device) for case in asked} - {None}
        reasons = [f"{len(asked)} rows: {reason}"] if reason else sorted(f"some rows: {r}" for r in refused)
        lines += [f"left out: {peer.name} ({peer.tier}), {text}" for text in reasons]
    return lines
