"""pytorch-grad-cam's CAMs."""

from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor
from torch.nn import functional as F

from attribution import Attribution, EigenCAM, GradCAM
from attribution.agreement import Agreement, agree, all_hold
from attribution.techniques.cam.family import CAM
from benchmarks.cases import Case
from benchmarks.peers.peer import Check, Contestant, Peer, classes, largest, no_numpy, own, tolerance
from benchmarks.peers.tap import grad_cam, tap
from benchmarks.rows import subject_of

METHODS = {
    "grad_cam": "GradCAM",
    "layer_cam": "LayerCAM",
    "hires_cam": "HiResCAM",
    "xgrad_cam": "XGradCAM",
    "eigen_cam": "EigenCAM",
}
"""Its classes by our names."""

_SCALED = "pytorch-grad-cam scales each map to 0…1 twice, on the host; ours was put through the same before comparing"


@dataclass(frozen=True, kw_only=True)
class PytorchGradCAM(Peer):
    """Made once as its documentation shows, then called with one ``ClassifierOutputTarget`` per image."""

    name: str = "pytorch-grad-cam"
    package: str = "grad-cam"

    def refuses(self, case: Case, device: str) -> str | None:
        """It leaves torch for numpy."""
        return no_numpy(case)

    def enter(self, case: Case, device: str, *, sweep: bool) -> Contestant:
        """Maps (N, H, W) in 0…1; back to the device, where ours are."""
        library = import_module("pytorch_grad_cam")
        targets_ = import_module("pytorch_grad_cam.utils.model_targets")
        model, inputs = subject_of(case, device)
        model = own(model)
        method = getattr(library, METHODS[case.technique.name])(model, [model.get_submodule(_layer(case))])
        targets = [targets_.ClassifierOutputTarget(index) for index in classes(case)] or None
        return Contestant(lambda: torch.from_numpy(method(input_tensor=inputs, targets=targets)).to(device), model)

    def check(self, case: Case, device: str, answer: Tensor, ours: Attribution) -> Check:
        """The map, after ours went through their scaling and resizing.

        Where the next module overwrites the layer's output in place, the library's stored activation is the
        overwritten one on the CPU, with the gradient from before: then the same is done with ours.
        """
        raw = ours.raw[_layer(case)]
        compared = (
            "maps of 0…1 against ours after ReLU, min–max and bilinear resize, within the dtype's tolerance × "
            "2 · max|raw| / max(ReLU(raw))"
        )
        direct = _compare(raw, answer, ours)
        if isinstance(case.technique, EigenCAM) and not all_hold(direct):
            pairs = zip(direct, _compare(-raw, answer, ours), strict=True)
            nearer = [min(pair, key=lambda agreement: agreement.difference) for pair in pairs]
            return Check(nearer, compared, f"{_SCALED}. Its sign is LAPACK's: here the other one")
        if all_hold(direct) or not isinstance(case.technique, GradCAM):
            return Check(direct, compared, _SCALED)
        model, inputs = subject_of(case, device)
        assert inputs is not None
        found = tap(model, case.subject.late, inputs, classes(case))
        if not found.overwritten:
            return Check(direct, compared, _SCALED)
        same = agree("before", raw, grad_cam(found.before, found.before_gradient), relative=tolerance(ours))
        explained = [same, *_compare(grad_cam(found.after, found.before_gradient), answer, ours)]
        return Check(
            explained,
            compared,
            f"{_SCALED}. {case.model}: the module after {case.subject.late} works in place, so on the CPU its stored "
            f"activation is overwritten while its gradient is not; its maps are off by {largest(direct):.0%} of the "
            "maximum, and agree once ours are computed from the overwritten activation",
        )


@dataclass(frozen=True, kw_only=True)
class PytorchCAMs(PytorchGradCAM):
    """Four of its classes, each made once and called one after the other."""

    def enter(self, case: Case, device: str, *, sweep: bool) -> Contestant:
        """Maps (N, 4, H, W) in 0…1."""
        library = import_module("pytorch_grad_cam")
        targets_ = import_module("pytorch_grad_cam.utils.model_targets")
        model, inputs = subject_of(case, device)
        model = own(model)
        layers = [model.get_submodule(case.subject.late)]
        methods = [getattr(library, METHODS[name])(model=model, target_layers=layers) for name in case.several]
        targets = [targets_.ClassifierOutputTarget(index) for index in classes(case)]

        def call() -> Tensor:
            maps = [torch.from_numpy(method(input_tensor=inputs, targets=targets)) for method in methods]
            return torch.stack(maps, dim=1).to(device)

        return Contestant(call, model)

    def check(self, case: Case, device: str, answer: Tensor, ours: Attribution) -> Check:
        """Each map, after ours went through their scaling and resizing."""
        pairs = zip(case.several, answer.unbind(1), strict=True)
        found = [a for name, map_ in pairs for a in _compare(ours.raw[f"{name}: {case.subject.late}"], map_, ours)]
        return Check(found, "maps of 0…1 against ours after ReLU, min–max and bilinear resize", _SCALED)


def _layer(case: Case) -> str:
    assert isinstance(case.technique, CAM)
    (layer,) = case.technique.layers
    return layer


def _compare(raw: Tensor, answer: Tensor, ours: Attribution) -> list[Agreement]:
    expected = scaled(raw.float(), tuple(answer.shape[1:]))
    found = []
    for n, (x, y) in enumerate(zip(expected, answer, strict=True)):
        positive = raw[n].max().clamp(min=torch.finfo(torch.float32).tiny)
        widened = 2 * float(raw[n].abs().max() / positive)
        found.append(agree(f"image {n}", x, y, relative=tolerance(ours) * widened))
    return found


def scaled(raw: Tensor, size: tuple[int, ...]) -> Tensor:
    """(N, 1, h, w) → (N, H, W) in 0…1: ReLU, min–max, bilinear resize, min–max."""
    resized = F.interpolate(_min_max(torch.relu(raw)), size=size, mode="bilinear", align_corners=False)
    return _min_max(resized)[:, 0]


def _min_max(maps: Tensor) -> Tensor:
    maps = maps - maps.amin(dim=(1, 2, 3), keepdim=True)
    return maps / (1e-7 + maps.amax(dim=(1, 2, 3), keepdim=True))
