"""
Volumes and series
==================

The same techniques on an input of three axes, as in a CT, and on one of one axis, as in an ECG. Both networks are made
by hand and look for something that is known to be there.
"""

# %%

import torch
from torch import nn

from attribution import GradCAM, Occlusion, explain

# %%
# A bright ball in a noisy volume
# -------------------------------

noise = torch.Generator().manual_seed(0)
z, y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), torch.arange(40.0), indexing="ij")
ball = ((z - 14) ** 2 + (y - 10) ** 2 + (x - 27) ** 2 < 25).float()
volume = (ball + 0.1 * torch.randn(ball.shape, generator=noise))[None, None]


class Ball(nn.Module):
    """One logit: the brightest mean of 5 × 5 × 5 voxels, and its negative."""

    def __init__(self) -> None:
        super().__init__()
        self.around = nn.Conv3d(1, 1, 5, padding=2, bias=False)
        nn.init.constant_(self.around.weight, 1 / 125)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = self.around(x).relu().pow(8).mean(dim=(2, 3, 4))
        return torch.cat([value, -value], dim=1)


model = Ball().eval()
answer = explain(model, volume, GradCAM(layers=("around",)), target=0)
place = answer.map[0, 0].flatten().argmax()
print("the ball is at (14, 10, 27); the map is largest at", torch.unravel_index(place, answer.map.shape[2:]))
figure = answer.figure(model="a network that looks for a ball")

# %%
# One odd beat in a series
# ------------------------

beats = torch.sin(torch.arange(400.0) / 6).clamp(min=0) ** 8
beats[200:232] *= -1
series = beats[None, None]


class Odd(nn.Module):
    """Two logits: whether some beat points downwards, or none."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = (-x).clamp(min=0).mean(dim=(1, 2)) * 50
        return torch.stack([low, 1 - low], dim=1)


answer = explain(Odd().eval(), series, Occlusion(window=24, stride=8), target=0)
figure = answer.figure(model="a network that looks for a beat upside down")
