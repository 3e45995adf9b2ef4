"""
What a transformer attends to
=============================

A small vision transformer is trained here, for some seconds, to tell whether the *brighter* of two squares is on the
left. What it needs to look at is known: the squares, and nothing else.
"""

# %%

import torch
from torch import nn
from torchvision.models import VisionTransformer

from attribution import AttentionRollout, GradientAttention, LeGrad, Occlusion, explain, explain_many, side_by_side

torch.manual_seed(0)


def squares(count: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, 3, 48, 48) with a square in each half, and where the brighter one is: 0 left, 1 right."""
    images = 0.1 * torch.rand(count, 3, 48, 48, generator=random)
    bright = torch.rand(count, 2, generator=random) * 0.6 + 0.3
    for image, pair in zip(images, bright, strict=True):
        for side, value in enumerate(pair):
            top, left = (int(torch.randint(0, 38 - 24 * axis, (), generator=random)) for axis in (0, 1))
            image[:, top : top + 10, left + 24 * side : left + 24 * side + 10] += value
    return images, bright.argmax(dim=1)


model = VisionTransformer(
    image_size=48, patch_size=6, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=2
)
nn.init.normal_(model.heads.head.weight, std=0.02)
random, optimizer = torch.Generator().manual_seed(0), torch.optim.AdamW(model.parameters(), lr=1e-3)
for _ in range(400):
    images, sides = squares(64, random)
    loss = nn.functional.cross_entropy(model(images), sides)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
model.eval()
images, sides = squares(500, torch.Generator().manual_seed(1))
with torch.no_grad():
    right = (model(images).argmax(dim=1) == sides).float().mean()
print(f"right on {right:.1%} of 500 new images")

# %%
# Four answers to one question
# ----------------------------
# Attention rollout knows no class: it tells where information may flow from. Gradient attention and LeGrad ask
# for the class. Occlusion asks the network itself: its number is a difference of probabilities, the safest of the four.

image = images[:1]
found = explain_many(
    model,
    image,
    {
        "rollout": AttentionRollout(),
        "gradient attention": GradientAttention(),
        "LeGrad": LeGrad(),
    },
    target=int(sides[0]),
)
found["occlusion"] = explain(model, image, Occlusion(window=10, stride=3), target=int(sides[0]))
figure = side_by_side(found, image, ["left", "right"], model="a transformer trained on squares")
