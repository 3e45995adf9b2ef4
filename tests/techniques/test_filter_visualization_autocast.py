"""Autocast is for the model: images, spectra and transforms keep their full precision."""

from typing import ClassVar

import pytest
import torch
from torch import nn

from attribution import Execution, FilterVisualization, explain
from tests.conftest import BACKENDS

TECHNIQUES = {
    "spectrum": FilterVisualization(layer="body", channels=(0, 1), steps=4, size=16, tv=0.1, l2=0.1),
    "pixels": FilterVisualization(layer="body", channels=(1,), steps=4, size=16, parametrization="pixel", scale=0.2),
    "dead at first": FilterVisualization(layer="rectified", channels=(0, 2), steps=2, size=16, noise=0.5),
}


class Exact(nn.Module):
    """Its gradients are powers of two, which bfloat16 holds exactly, so that the images are those of float32.

    ``under`` notes of each forward of any copy whether it ran under autocast.
    """

    under: ClassVar[list[bool]] = []

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 1)
        self.rectified = nn.ReLU()
        weight = torch.tensor([[1.0, 0.5, 2.0], [-0.25, 4.0, 1.0], [0.125, 0.125, -8.0]])
        bias = torch.tensor([1024.0, 1024.0, -32.0])
        self.body.load_state_dict({"weight": weight[..., None, None], "bias": bias})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Exact.under.append(torch.is_autocast_enabled("cpu"))
        return self.rectified(self.body(x))  # type: ignore[no-any-return]


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", TECHNIQUES)
def test_images_are_those_of_full_precision(name: str, dtype: torch.dtype, backend: str) -> None:
    technique, model = TECHNIQUES[name], Exact().eval()
    plain = explain(model, None, technique, backend=backend)
    Exact.under.clear()
    coarse = explain(model, None, technique, backend=backend, execution=Execution(autocast=dtype))
    assert all(Exact.under), "the model runs under autocast"
    assert plain.extras["status"].tolist()[:1] == [0]
    for key, images in plain.raw.items():
        assert torch.equal(coarse.raw[key], images), key
    assert not torch.equal(coarse.extras["objective"], plain.extras["objective"]), "autocast did nothing"
    assert not torch.is_autocast_enabled("cpu")
