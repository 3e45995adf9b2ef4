"""What a forward and its gradients hold at once keeps to ``memory_budget``, and the maps stay what they are."""

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, Attribution, Execution, FilterVisualization, GradCAM, Technique, explain
from attribution.testing import calibrated
from tests.conftest import BACKENDS, noise
from tests.live import Live

MIB = 2**20
X = noise(12, 3, 61, 67)


class Residual(nn.Module):
    """Adds and concatenates without modules, which no survey sees."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = (
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.norm(self.conv(x)) + x)  # type: ignore[no-any-return]


def net() -> nn.Module:
    def layers() -> nn.Module:
        trunk = (nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), Residual(16), nn.MaxPool2d(2), Residual(16))
        return nn.Sequential(
            *trunk, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(144, 16), nn.ReLU(), nn.Linear(16, 9)
        )

    return calibrated(layers, 0, torch.float32)


def asked(technique: Technique, backend: str, budget: int, targets: int = 1) -> tuple[Attribution, int]:
    """The answer, and the most bytes that were alive, without the inputs and the maps."""
    model, inputs = net(), X if technique.needs_inputs else None
    target = [[*range(targets)]] * len(X) if technique.needs_target else None
    ask = lambda: explain(  # noqa: E731  # a thunk
        model, inputs, technique, backend=backend, target=target, execution=Execution(memory_budget=budget)
    )
    ask()  # what is found out once
    with Live() as live:
        found = ask()
    return found, live.peak - 2 * sum(map_.nbytes for map_ in found.raw.values())


@BACKENDS
@pytest.mark.parametrize("layer", ["0", "3"])
@pytest.mark.parametrize("targets", [1, 8])
def test_grad_cam(targets: int, layer: str, backend: str) -> None:
    technique, budget = GradCAM(layers=(layer,), relu=False, upsample=False), 8 * MIB
    tight, held = asked(technique, backend, budget, targets)
    roomy, free = asked(technique, backend, 1024 * MIB, targets)
    assert held <= budget + X.nbytes
    assert free > 1.25 * held, "all images at once need more"
    assert all(pair.holds and not pair.degenerate for pair in technique.agreement(tight, roomy))


@BACKENDS
def test_one_image_and_one_target_at_a_time_where_not_even_they_fit(backend: str) -> None:
    technique = GradCAM(layers=("0",), relu=False, upsample=False)
    least, held = asked(technique, backend, 1, 8)
    single = [
        explain(net(), image, technique, backend=backend, target=[[label]]).raw["0"]
        for image in X.split(1)
        for label in range(8)
    ]
    assert torch.allclose(least.raw["0"].flatten(0, 1), torch.cat(single)[:, 0], rtol=1e-4, atol=1e-6)
    assert least.provenance.get("targets per backward", 1) == 1
    model, one = net(), X[:1]
    with Live() as live:
        explain(model, one, technique, backend=backend, target=0)
    assert held <= 1.5 * live.peak + X.nbytes


@BACKENDS
def test_means_of_activations(backend: str) -> None:
    technique = Activations(layers=("0", "2", "4"), reduce="mean")
    tight, held = asked(technique, backend, 4 * MIB)
    roomy, free = asked(technique, backend, 1024 * MIB)
    assert held <= 4 * MIB + X.nbytes
    assert free > 2 * held
    assert all(pair.holds for pair in technique.agreement(tight, roomy))


@BACKENDS
def test_filters(backend: str) -> None:
    technique = FilterVisualization(
        layer="2", channels=tuple(range(12)), steps=2, size=(61, 67), parametrization="pixel", jitter=0, in_channels=3
    )
    tight, held = asked(technique, backend, 8 * MIB)
    roomy, free = asked(technique, backend, 1024 * MIB)
    assert held <= 8 * MIB + X.nbytes
    assert free > 1.5 * held
    assert all(pair.holds for pair in technique.agreement(tight, roomy))
