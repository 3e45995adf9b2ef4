"""Images of another size and shape than a model was made for: the grid is theirs, or the model says that it cannot."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from attribution import (
    Attention,
    AttentionRollout,
    ClassScore,
    GradCAM,
    GradientAttention,
    Inputs,
    LayerError,
    LeGrad,
    ModelError,
    TokenOcclusion,
    explain,
)
from tests.conftest import noise
from tests.techniques.attention import oracle
from tests.techniques.attention.nets import CASES, net

DYNAMIC = "timm ViT, any size"
OPTIONS: dict[str, dict[str, Any]] = {
    DYNAMIC: {},
    "Hugging Face DINOv2": {},
    "Hugging Face ViT": {"interpolate_pos_encoding": True},
    "Hugging Face DeiT": {"interpolate_pos_encoding": True},
    "Hugging Face CLIP": {"interpolate_pos_encoding": True},
}
IN_FLOAT32 = ("Hugging Face ViT", "Hugging Face DeiT", "Hugging Face CLIP")
"""Whose own eager attention takes its softmax in float32, whatever it is given."""
SIZES = {(48, 80): (3, 5), (112, 32): (7, 2)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", OPTIONS)
def test_the_grid_is_that_of_the_images(name: str, size: tuple[int, int]) -> None:
    x, options, leading = noise(2, 3, *size, dtype=torch.float64), OPTIONS[name], (CASES[name].tokens or (0,))[0]
    given = Inputs.of({"pixel_values": x, **options}) if options else Inputs.of(x)
    found = explain(net(name), given, AttentionRollout())
    assert found.provenance["tokens"] == f"{leading} + {SIZES[size][0]} · {SIZES[size][1]}"
    assert found.map.shape == (2, 1, *size)
    grid, matrices = (leading, *SIZES[size]), []
    for n in range(2):
        _, kept = oracle.weights(name, net(name), x[n : n + 1], **options)
        chain = [oracle.fused(weights[0].detach().double().numpy(), "mean") for weights in kept]
        matrices.append(oracle.rollout(chain))
    (raw,) = found.raw.values()
    by_rows = np.stack([[oracle.row(matrix, grid, 0)] for matrix in matrices])
    by_columns = np.stack([[oracle.row(matrix, (leading, *SIZES[size][::-1]), 0).T] for matrix in matrices])
    assert off(raw, by_rows) < (1e-6 if name in IN_FLOAT32 else 1e-10)
    assert off(raw, by_columns) > 1e-3


def off(found: torch.Tensor, expected: oracle.Array) -> float:
    assert found.shape == expected.shape
    return float((found - torch.from_numpy(expected)).abs().max() / found.abs().max())


@pytest.mark.parametrize("name", [DYNAMIC, "Hugging Face ViT"])
def test_every_technique_has_a_map_of_these_images(name: str) -> None:
    """Asked about a model of that size with the same weights, where positions are not interpolated, or as it is."""
    x, target = noise(2, 3, 48, 80, dtype=torch.float64), ClassScore([[1, 3], [0, 2]], output=CASES[name].output)
    given = Inputs.of({"pixel_values": x, **OPTIONS[name]}) if OPTIONS[name] else Inputs.of(x)
    for technique in (Attention(), GradientAttention(), LeGrad(), TokenOcclusion(window=2), GradCAM(relu=False)):
        found = explain(net(name), given, technique, target=target if technique.needs_target else None)
        assert found.map.shape == (2, 2 if technique.needs_target else 1, 48, 80)
        (raw,) = found.raw.values()
        assert raw.shape[2:] == (3, 5)
        assert "zero everywhere" not in found.provenance


@pytest.mark.parametrize("name", ["torchvision ViT", "timm ViT", "Hugging Face ViT"])
def test_a_size_that_the_model_refuses_is_its_error(name: str) -> None:
    with pytest.raises(ModelError, match=r"failed on inputs of shape \(1, 3, 32, 64\)"):
        explain(net(name), noise(2, 3, 32, 64, dtype=torch.float64), AttentionRollout())


class Flat(nn.Module):
    """Patches cut by a view: no layer computes a grid."""

    def __init__(self, side: int = 8) -> None:
        super().__init__()
        self.side, self.embed = side, nn.Linear(3 * side * side, 16)
        self.block, self.head = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = x.unfold(2, self.side, self.side).unfold(3, self.side, self.side)
        tokens = self.embed(patches.flatten(2, 3).permute(0, 2, 1, 3, 4).flatten(2))
        out: torch.Tensor = self.head(self.block(tokens).mean(dim=1))
        return out


def test_patches_that_no_layer_lays_out_are_square_or_must_be_said() -> None:
    torch.manual_seed(0)
    model = Flat().double().eval()
    found = explain(model, noise(2, 3, 24, 40, dtype=torch.float64), AttentionRollout())
    assert found.provenance["tokens"] == "0 + 3 · 5"
    odd = noise(2, 3, 25, 41, dtype=torch.float64)  # a rest of the image is cut off
    with pytest.raises(LayerError, match=r"15 tokens of .* make no grid of the input; say how"):
        explain(model, odd, AttentionRollout())
    assert explain(model, odd, AttentionRollout(tokens=(0, 3, 5))).map.shape == (2, 1, 25, 41)
