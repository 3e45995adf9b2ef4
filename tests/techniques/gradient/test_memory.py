"""Gradients take no more memory than Captum's, with as many rows at once, but for one copy that protects the inputs.

Where the inputs are the only point, the model is shown a copy of them, since it may write there. Captum shows it the
user's own tensor. The copy stays as long as the graph: a layer with weights that require gradients keeps its input.
Elsewhere both have the rows that the model is shown, made of the inputs. Ours are made of the user's own tensor.
"""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum import attr
from torch import Tensor, nn

from attribution import (
    Deconvolution,
    Execution,
    GradientSHAP,
    GuidedBackprop,
    GuidedGradCAM,
    InputXGradient,
    IntegratedGradients,
    Saliency,
    SmoothGrad,
    explain,
    registry,
)
from attribution.technique import Technique
from attribution_hooks.gradient import pieces, sums
from attribution_hooks.gradient.gradients import gradients
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
    "input_x_gradient": (InputXGradient(), lambda model, x: attr.InputXGradient(model).attribute(x, target=TARGET)),
    "guided_backprop": (GuidedBackprop(), lambda model, x: attr.GuidedBackprop(model).attribute(x, target=TARGET)),
    "deconvolution": (Deconvolution(), lambda model, x: attr.Deconvolution(model).attribute(x, target=TARGET)),
    "guided_grad_cam": (
        GuidedGradCAM(layer="3"),
        lambda model, x: attr.GuidedGradCam(model, model.get_submodule("3")).attribute(x, target=TARGET),
    ),
}
SUMS = ["integrated_gradients", "smooth_grad", "gradient_shap"]
COPIES = {"integrated_gradients": 0, "smooth_grad": 0, "gradient_shap": 0, "guided_grad_cam": 0}
"""Of the inputs, beside Captum's memory; what is not named has one, no more than its answer."""
ROUNDING = 1024
"""Bytes of what is smaller than an image: numbers of examples, scores, targets."""


def peak(work: Callable[[], Any], x: Tensor) -> int:
    """Bytes at once beside the inputs, in the second call: what is found out about a model stays."""
    with warnings.catch_warnings(action="ignore"):
        work()
        with Live(x) as live:
            work()
    return int(live.peak)


def asked(technique: Technique, model: nn.Module, x: Tensor, rows: int = ROWS) -> Callable[[], Any]:
    return lambda: explain(model, x, technique, target=TARGET, execution=Execution(batch_size=rows))


def allowed(name: str, model: nn.Module, x: Tensor) -> int:
    """Captum's bytes, and those of the copies."""
    return peak(lambda: QUESTIONS[name][1](model, x), x) + COPIES.get(name, 1) * x.nbytes + ROUNDING


@pytest.mark.parametrize("examples", [1, 2])
@pytest.mark.parametrize("name", QUESTIONS)
def test_no_more_than_captum_but_for_copies_of_the_inputs(name: str, examples: int) -> None:
    model, x = _net(), noise(examples, 3, 61, 47)
    ours, most = peak(asked(QUESTIONS[name][0], model, x), x), allowed(name, model, x)
    assert 0 < ours <= most, f"{ours:,} bytes, of {most:,}"


@pytest.mark.parametrize("name", [name for name in QUESTIONS if name not in COPIES or name == "integrated_gradients"])
def test_one_more_copy_would_be_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = _net(), noise(1, 3, 61, 47)
    most = allowed(name, model, x)
    monkeypatch.setattr(registry.get(QUESTIONS[name][0], "hooks"), "only_shows", False)
    assert peak(asked(QUESTIONS[name][0], model, x), x) > most


@pytest.mark.parametrize("name", SUMS)
def test_more_would_be_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the rows, points that are kept, and graphs that are kept, are more than that."""
    model, x, technique = _net(), noise(1, 3, 61, 47), QUESTIONS[name][0]
    most = allowed(name, model, x)
    assert peak(asked(technique, model, x, 2 * ROWS), x) > most
    with monkeypatch.context() as patch:
        made, at = list[Any](), pieces.Pieces.at

        def keeps(self: Any, places: Any) -> Any:
            made.append(at(self, places))
            return made[-1]

        patch.setattr(pieces.Pieces, "at", keeps)
        assert peak(asked(technique, model, x), x) > most
    kept: list[Any] = []
    forward = GradientSums.output

    def output(self: Any, run: Any, shown: Any, leaves: Any, examples: Any) -> Any:
        kept.append(forward(self, run, shown, leaves, examples))
        return kept[-1]

    monkeypatch.setattr(GradientSums, "output", output)
    monkeypatch.setattr(sums, "gradients", lambda column, leaves, keep: gradients(column, leaves, keep=True))
    assert peak(asked(technique, model, x), x) > most
