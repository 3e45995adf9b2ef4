"""Default layers of trunks that end in tokens: what is named instead of them, and what of attention is no layer."""

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from attribution import GradCAM, compare, explain
from attribution.layers import activation_layers
from tests.conftest import noise


class Attention(nn.Module):
    """Tokens with a table of positional bias and maps of attention, which have the shape of grids."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias, self.drop = Bias(), nn.Dropout(0.1)
        self.mlp = nn.Linear(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        weights = self.drop((q @ k.mT + self.bias()).softmax(dim=-1))
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        return (x + self.mlp(self.norm2(x)),)


class Bias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 2, 13, 13))

    def forward(self) -> Tensor:
        return self.table


class Tokens(nn.Module):
    def __init__(self, read: Literal["class", "mean"]) -> None:
        super().__init__()
        self.read = read
        self.patch = nn.Conv2d(3, 32, 8, stride=8)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.blocks = nn.ModuleList(Attention(32) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.patch(x).flatten(2).mT], dim=1)
        for block in self.blocks:
            (x,) = block(x)
        x = self.norm(x)
        return self.head(x[:, 0] if self.read == "class" else x.mean(dim=1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("read", ["class", "mean"])
def test_the_default_for_tokens_is_the_last_blocks_first_norm(read: Literal["class", "mean"]) -> None:
    torch.manual_seed(0)
    model, inputs = Tokens(read).double().eval(), noise(2, 3, 24, 32, dtype=torch.float64)
    both = compare(model, inputs, GradCAM(), target=1)
    assert both.holds
    for result in both.attributions.values():
        assert result.technique == GradCAM(layers=("blocks.1.norm1",), tokens=(1, 3, 4))
        assert result.raw["blocks.1.norm1"].shape == (2, 1, 3, 4)
    whole = explain(model, inputs, GradCAM(relu=False), target=1).raw["blocks.1.norm1"].flatten(1)
    assert (whole.abs() > 1e-3 * whole.abs().amax()).all(), "every place has a gradient"


def test_neither_bias_nor_attention_is_an_activation() -> None:
    assert activation_layers(Tokens("class").eval(), noise(1, 3, 24, 32)) == ("patch",)
