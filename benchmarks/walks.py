"""How far a reader walks to follow one call: functions of this project that run, their files, and changes of file.

``uv run python -m benchmarks.walks`` prints what each call passed. Counts do not depend on the machine.
`tests/benchmarks/test_walks.py` holds them to `LIMITS`.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import torch
from torch import Tensor

from attribution import Activations, Attributor, GradCAM, Occlusion, explain, prepared, register
from attribution.registry import unregister
from attribution.run import Run
from attribution.technique import Maps
from attribution.testing import small_cnn

ROOT = Path(__file__).parent.parent
OURS = (str(ROOT / "attribution"), str(ROOT / "backends"))

LIMITS = {
    "grad_cam by hooks": (221, 55, 167),
    "grad_cam by a plugin": (170, 45, 133),
    "occlusion by hooks": (988, 75, 589),
    "activations": (162, 45, 128),
    "activations, prepared": (109, 34, 89),
}
"""What each call may pass at most: calls, files, changes of file. Decision 22 says why they are what they are."""

WITHIN = ("<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>", "<lambda>")
"""What stands inside of a function and is read with it."""


@dataclass
class Walk:
    """What one call passed.

    Attributes:
        calls: Functions of this project, by the file that each stands in.
    """

    calls: list[str] = field(default_factory=list)

    @property
    def files(self) -> int:
        """Different files."""
        return len({*self.calls})

    @property
    def changes(self) -> int:
        """Calls into another file than that of the call before."""
        return sum(a != b for a, b in zip(self.calls, self.calls[1:], strict=False))

    def __str__(self) -> str:
        return f"{len(self.calls)} calls, {self.files} files, {self.changes} changes of file"


def walk(work: Callable[[], object]) -> Walk:
    """Of the second call: what is found out once for a model is found out in the first."""
    work()
    found = Walk()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OURS) and frame.f_code.co_name not in WITHIN:
            found.calls.append(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return found


class Plain(Attributor[GradCAM]):
    """What a stranger's plugin does: forward, scores, gradient."""

    technique_type: ClassVar[type[GradCAM]] = GradCAM
    backend: ClassVar[str] = "walks"

    def compute(self, run: Run[GradCAM]) -> Maps:
        """The gradient of the image, as a map of the layer."""
        x = run.inputs.tensor.detach().requires_grad_()
        scores = run.scores(run.forward(x))
        (gradient,) = torch.autograd.grad(scores.sum(), x)
        return {"body": gradient.sum(1, keepdim=True)}


def walks() -> Iterator[tuple[str, Walk]]:
    """The calls that are counted."""
    model, inputs = small_cnn(), torch.rand(1, 3, 17, 23)
    grad_cam = GradCAM(layers=("body",))

    def asked(technique: Any, backend: str) -> Callable[[], Tensor]:
        return lambda: explain(model, inputs, technique, backend=backend, target=1).map

    yield "grad_cam by hooks", walk(asked(grad_cam, "hooks"))
    register(Plain)
    try:
        yield "grad_cam by a plugin", walk(asked(grad_cam, "walks"))
    finally:
        unregister(Plain)
    yield "occlusion by hooks", walk(asked(Occlusion(window=5, stride=3), "hooks"))
    yield "activations", walk(partial(explain, model, inputs, Activations(layers=("body",))))
    with prepared(model):
        yield "activations, prepared", walk(partial(explain, model, inputs, Activations(layers=("body",))))


if __name__ == "__main__":
    for name, found in walks():
        print(f"{name}: {found}")
