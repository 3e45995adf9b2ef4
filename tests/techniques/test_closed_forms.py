"""Answers known on paper, for every installed backend."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution import Activations, FilterVisualization, GradCAM, Occlusion, explain
from tests.conftest import logit, noise

BACKENDS = ["hooks", "captum"]
DOUBLE = torch.float64


class GlobalMean(nn.Module):
    """conv → mean over space → linear, the network of the CAM paper."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.conv(x).mean(dim=(2, 3)))
        return out


def seeded(model: nn.Module) -> nn.Module:
    for index, parameter in enumerate(model.parameters()):
        parameter.data = noise(*parameter.shape, dtype=DOUBLE, seed=index)
    return model.eval()


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> bool:
    return bool(a.shape == b.shape and (a - b).abs().max() <= tolerance * b.abs().max() and b.abs().max() > 1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_grad_cam_is_cam_on_a_global_mean(backend: str) -> None:
    model, inputs = seeded(GlobalMean()), noise(2, 3, 9, 12, dtype=DOUBLE)
    result = explain(
        model, inputs, GradCAM(layers=("conv",), relu=False, upsample=False), backend=backend, target="all"
    )
    assert isinstance(model, GlobalMean)
    activation = model.conv(inputs).detach()
    cam = torch.einsum("tk,nkhw->nthw", model.linear.weight.detach(), activation) / activation[0, 0].numel()
    assert close(result.map, cam)
    assert close(result.map.sum(dim=(2, 3)), model(inputs).detach() - model.linear.bias.detach()), "the map adds up"


@pytest.mark.parametrize("border", ["cover", "drop"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_occlusion_of_a_linear_model_is_the_covered_sum(backend: str, border: str) -> None:
    height, width, window, stride, baseline = 7, 9, 4, 2, (0.5, -1.0, 0.25)
    model = seeded(nn.Sequential(nn.Flatten(), nn.Linear(3 * height * width, 2)))
    inputs = noise(2, 3, height, width, dtype=DOUBLE)
    technique = Occlusion(window=window, stride=stride, baseline=baseline, border=border)  # type: ignore[arg-type]
    found = explain(model, inputs, technique, backend=backend, target=logit("all")).map

    linear = model.get_submodule("1")
    assert isinstance(linear, nn.Linear)
    evidence = linear.weight.detach().reshape(2, 3, height, width) * (
        inputs[:, None] - torch.tensor(baseline, dtype=DOUBLE).reshape(1, 1, 3, 1, 1)
    )
    expected, count = torch.zeros(2, 2, height, width, dtype=DOUBLE), torch.zeros(height, width, dtype=DOUBLE)
    rows, columns = ((0, 2, 4), (0, 2, 4, 6)) if border == "cover" else ((0, 2), (0, 2, 4))
    for top in rows:
        for left in columns:
            here = (..., slice(top, top + window), slice(left, left + window))
            expected[here] += evidence[here].sum(dim=(2, 3, 4))[..., None, None]
            count[here] += 1
    expected /= count.clamp(min=1)
    assert (count.min() == 0) == (border == "drop")
    assert close(found, expected, 1e-10 if backend == "hooks" else 1e-5)
    assert (found[..., count == 0] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_identity_layer_returns_its_input(backend: str) -> None:
    model = seeded(nn.Sequential(nn.Identity(), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(60, 2)))
    inputs = noise(2, 3, 4, 5, dtype=DOUBLE)
    result = explain(model, inputs, Activations(layers=("0", "1", "2")), backend=backend)
    assert torch.equal(result.maps["0"], inputs)
    assert torch.equal(result.maps["1"], inputs.clamp(min=0))
    assert torch.equal(result.maps["2"], inputs.clamp(min=0).flatten(1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_step_through_one_convolution_is_a_transposed_convolution(backend: str) -> None:
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    model = seeded(nn.Sequential(conv, nn.Flatten(), nn.LazyLinear(2)) if False else nn.Sequential(conv, nn.ReLU()))
    technique = FilterVisualization.notebook(
        layer="0", channels=(2, 0), steps=1, step_size=0.7, size=(8, 10), noise=0.3
    )
    result = explain(model, None, technique, backend=backend)
    start = technique.start(model)
    for row, channel in enumerate(technique.channels):
        shape = conv(start[:1]).shape
        ones = torch.zeros(shape, dtype=DOUBLE)
        ones[:, channel] = 1 / (shape[2] * shape[3])
        g = F.conv_transpose2d(ones, conv.weight.detach(), stride=2, padding=1, output_padding=1)[0]
        assert close(result.map[row] - start[row], 0.7 * g / (g.std() + 1e-8))
        weights = conv.weight.detach()[channel]
        assert result.extras["objective"].shape == (2, 2)
        before, after = (conv(x[None]).detach()[0, channel].mean() for x in (start[row], result.map[row]))
        assert close(result.extras["objective"][:, row], torch.stack([before, after]))
        assert weights.abs().sum() > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_start_is_seeded_noise_of_the_given_size(backend: str) -> None:
    model = seeded(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()))
    shape = {"layer": "0", "channels": (0, 1), "steps": 1, "size": (40, 50), "noise": 0.2}
    starts = [FilterVisualization.notebook(**shape, seed=seed).start(model) for seed in (0, 0, 1)]  # type: ignore[arg-type]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    assert not torch.equal(starts[0][0], starts[0][1])
    assert abs(starts[0].std().item() - 0.2) < 0.01
    assert abs(starts[0].mean().item()) < 0.01
