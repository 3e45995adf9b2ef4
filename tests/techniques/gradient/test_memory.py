"""Gradients take Captum's memory, with as many rows at once, and copies of the inputs, which Captum does not make.

The copies: of the user's inputs, of which a model must not write into the originals; of each point; of the rows that go
through the model, which may write into them, but not into those that gradients are taken of; and the sums.
"""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum import attr
from torch import Tensor, nn

from attribution import Execution, GradientSHAP, IntegratedGradients, Saliency, SmoothGrad, explain
from attribution.technique import Technique
from attribution_hooks.gradient import sums
from attribution_hooks.gradient.sums import GradientSums
from tests.conftest import noise
from tests.live import Live

POINTS, ROWS, TARGET = 8, 4, 3
Captum = Callable[[nn.Module, Tensor], Tensor]


def _net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        wide = [nn.Sequential(nn.Conv2d(3 if not n else 12, 12, 3, padding=1), nn.ReLU()) for n in range(4)]
        return nn.Sequential(*wide, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)).eval()


def _shap(model: nn.Module, x: Tensor) -> Tensor:
    """All of its samples are one batch; as many rows at once are several calls of some."""
    method, start = attr.GradientShap(model), torch.zeros_like(x[:1])
    parts = [method.attribute(x, start, ROWS // len(x), target=TARGET) for _ in range(POINTS * len(x) // ROWS)]
    return torch.stack(parts).mean(dim=0)


def _tunnel(model: nn.Module, x: Tensor) -> Tensor:
    manner = {"nt_samples": POINTS, "nt_samples_batch_size": ROWS // len(x), "abs": False, "target": TARGET}
    found: Tensor = attr.NoiseTunnel(attr.Saliency(model)).attribute(x, **manner)
    return found


QUESTIONS: dict[str, tuple[Technique, Captum]] = {
    "saliency": (Saliency(), lambda model, x: attr.Saliency(model).attribute(x, target=TARGET)),
    "integrated_gradients": (
        IntegratedGradients(steps=POINTS),
        lambda model, x: attr.IntegratedGradients(model).attribute(
            x, n_steps=POINTS, internal_batch_size=ROWS, target=TARGET
        ),
    ),
    "smooth_grad": (SmoothGrad(samples=POINTS), _tunnel),
    "gradient_shap": (GradientSHAP(samples=POINTS), _shap),
}


def peak(work: Callable[[], Any]) -> int:
    """Bytes at once, in the second call: what is found out about a model stays."""
    with warnings.catch_warnings(action="ignore"):
        work()
        with Live() as live:
            work()
    return int(live.peak)


def asked(technique: Technique, model: nn.Module, x: Tensor, rows: int = ROWS) -> Callable[[], Any]:
    return lambda: explain(model, x, technique, target=TARGET, execution=Execution(batch_size=rows))


def allowed(technique: Technique, captum: Captum, model: nn.Module, x: Tensor) -> int:
    """Captum's bytes, and those of three copies of the rows and six of the inputs."""
    rows = len(x) if isinstance(technique, Saliency) else ROWS
    return peak(lambda: captum(model, x)) + (3 * rows + 6 * len(x)) * x[0].nbytes


@pytest.mark.parametrize("examples", [1, 2])
@pytest.mark.parametrize("name", QUESTIONS)
def test_no_more_than_captum_but_for_copies_of_the_inputs(name: str, examples: int) -> None:
    model, x, (technique, captum) = _net(), noise(examples, 3, 61, 47), QUESTIONS[name]
    ours, most = peak(asked(technique, model, x)), allowed(technique, captum, model, x)
    assert 0 < ours <= most, f"{ours:,} bytes, of {most:,}"


@pytest.mark.parametrize("name", ["integrated_gradients", "smooth_grad", "gradient_shap"])
def test_more_would_be_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the rows, and graphs that are kept, are more than that."""
    model, x, (technique, captum) = _net(), noise(1, 3, 61, 47), QUESTIONS[name]
    most = allowed(technique, captum, model, x)
    assert peak(asked(technique, model, x, 2 * ROWS)) > most
    kept: list[Any] = []
    forward = GradientSums.output

    def output(self: Any, run: Any, leaves: Any, examples: Any) -> Any:
        kept.append(forward(self, run, leaves, examples))
        return kept[-1]

    monkeypatch.setattr(GradientSums, "output", output)
    monkeypatch.setattr(
        sums, "gradients", lambda column, leaves, keep, own=sums.gradients: own(column, leaves, keep=True)
    )
    assert peak(asked(technique, model, x)) > most
