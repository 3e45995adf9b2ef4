"""torchcam's ``GradCAM``."""

from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor

from attribution import Attribution
from attribution.agreement import Agreement, agree, all_hold
from benchmarks.cases import Case
from benchmarks.peers.peer import Check, Contestant, Peer, classes, largest, own, tolerance
from benchmarks.peers.tap import grad_cam, tap
from benchmarks.rows import subject_of

_NATIVE = "torchcam leaves upsampling to the user: its time has none, ours has"


@dataclass(frozen=True, kw_only=True)
class TorchCAM(Peer):
    """Made once with the layer's name, then a forward and ``cam(classes, scores, normalized=False)``."""

    name: str = "torchcam"
    package: str = "torchcam"

    def enter(self, case: Case, device: str, *, sweep: bool) -> Contestant:
        """Maps (N, h, w) on the layer's grid, after ReLU."""
        library = import_module("torchcam.methods")
        model, inputs = subject_of(case, device)
        model = own(model)
        method = library.GradCAM(model, case.subject.late)
        target = classes(case)

        def call() -> Tensor:
            maps: list[Tensor] = method(target, model(inputs), normalized=False)
            return maps[0]

        return Contestant(call, model)

    def check(self, case: Case, device: str, answer: Tensor, ours: Attribution) -> Check:
        """The raw map after ReLU.

        Where the next module overwrites the layer's output in place, the library takes both the activation and
        the gradient behind that module: then the same is done with ours.
        """
        raw = ours.raw[case.subject.late]
        compared = "maps on the layer's grid against ReLU(raw), within the dtype's tolerance × max|raw|"
        direct = _compare(raw, answer, ours)
        if all_hold(direct):
            return Check(direct, compared, _NATIVE)
        model, inputs = subject_of(case, device)
        assert inputs is not None
        found = tap(model, case.subject.late, inputs, classes(case))
        if not found.overwritten:
            return Check(direct, compared, _NATIVE)
        same = agree("before", raw, grad_cam(found.before, found.before_gradient), relative=tolerance(ours))
        explained = [same, *_compare(grad_cam(found.after, found.after_gradient), answer, ours)]
        return Check(
            explained,
            compared,
            f"{_NATIVE}. {case.model}: the module after {case.subject.late} works in place, so it explains that "
            f"module instead; its maps are off by {largest(direct):.0%} of the maximum, and agree once ours explain "
            "that module too",
        )


def _compare(raw: Tensor, answer: Tensor, ours: Attribution) -> list[Agreement]:
    return [
        agree(f"image {n}", torch.relu(x[0]), y, relative=0.0, absolute=tolerance(ours) * float(x.abs().max()))
        for n, (x, y) in enumerate(zip(raw, answer, strict=True))
    ]
