"""
What a transformer attends to
=============================

A small vision transformer is trained here, for half a minute, to tell red from blue: of three squares one has a colour.
What it needs to look at is known: that square, and nothing else.
"""

# %%

import torch
from torch import nn
from torchvision.models import VisionTransformer

from attribution import AttentionRollout, GradientAttention, LeGrad, Occlusion, explain, explain_many, side_by_side

torch.manual_seed(0)


def squares(count: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, 3, 48, 48) with two grey squares and one that is red, class 0, or blue, class 1."""
    images, classes = 0.2 * torch.rand(count, 3, 48, 48, generator=random), torch.arange(count) % 2
    for image, blue in zip(images, classes.tolist(), strict=True):
        for number, corner in enumerate(torch.randperm(4, generator=random)[:3].tolist()):
            top, left = (int(torch.randint(0, 12, (), generator=random)) + 24 * part for part in divmod(corner, 2))
            colour = torch.full((3,), 0.5) if number else torch.tensor([1.0 - blue, 0.0, float(blue)])
            image[:, top : top + 12, left : left + 12] += colour.view(3, 1, 1)
    return images.clamp(max=1), classes


model = VisionTransformer(
    image_size=48, patch_size=6, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=2
)
nn.init.normal_(model.heads.head.weight, std=0.02)
random, optimizer = torch.Generator().manual_seed(0), torch.optim.AdamW(model.parameters(), lr=1e-3)
for _ in range(300):
    images, classes = squares(64, random)
    loss = nn.functional.cross_entropy(model(images), classes)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
model.eval()
images, classes = squares(500, torch.Generator().manual_seed(1))
with torch.no_grad():
    right = (model(images).argmax(dim=1) == classes).float().mean()
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
    target=0,
)
found["occlusion"] = explain(model, image, Occlusion(window=12, stride=3), target=0)
figure = side_by_side(found, image, ["red", "blue"], model="a transformer that tells red from blue")

# %%
# What the network did not need
# -----------------------------
# Of a blue image no window changes anything: the network has learned to look for red, and answers "blue" where it finds
# none. The attention maps do not tell; the colour bar of the occlusion does.

blue = explain(model, images[1:2], Occlusion(window=12, stride=3), target=1)
print(f"red: up to {found['occlusion'].map.max():.2g} of the probability; blue: up to {blue.map.abs().max():.0e}")
figure = blue.figure(images[1:2], ["red", "blue"], model="a transformer that tells red from blue")
