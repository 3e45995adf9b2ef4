"""
A region instead of a class
===========================

A segmentation network answers with a map for each class. ``RegionScore`` explains the part of it that lies in a region.
The network here is made by hand, so that the right answer is known: it looks for red, and looks 15 pixels around.
"""

# %%

import torch
from torch import nn

from attribution import Occlusion, RegionScore, Saliency, explain, zoo

photo = zoo.sample_photo("coffee").resize((150, 100))
pixels = torch.frombuffer(bytearray(photo.tobytes()), dtype=torch.uint8).view(100, 150, 3)
inputs = pixels.movedim(-1, 0)[None].float() / 255


class Red(nn.Module):
    """(N, 2, H, W): how red the neighbourhood of each pixel is, and how red it is not."""

    def __init__(self) -> None:
        super().__init__()
        self.colour = nn.Conv2d(3, 2, 1)
        self.around = nn.AvgPool2d(31, stride=1, padding=15)
        with torch.no_grad():
            self.colour.weight.copy_(torch.tensor([[1.0, -0.5, -0.5], [-1.0, 0.5, 0.5]]).view(2, 3, 1, 1))
            self.colour.bias.copy_(torch.tensor([-0.42, 0.42]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.around(self.colour(x))


model = Red().eval()
found = model(inputs).argmax(dim=1)[0] == 0
print(f"{found.float().mean():.0%} of the photo is found red")

# %%
# Without a mask the region is what the network itself gives to the class, settled on the clean photo. The gradient is
# largest inside it and fades over the 15 pixels around, which is what the network was built to do.

answer = explain(model, inputs, Saliency(), target=RegionScore(0))
figure = answer.figure(inputs, model="a network that looks for red")

# %%
# A mask asks about one corner of the same output.

mask = torch.zeros(100, 150, dtype=torch.bool)
mask[20:60, 40:90] = True
answer = explain(model, inputs, Occlusion(window=15, stride=5), target=RegionScore(0, mask=mask))
print(f"windows count within {mask.nonzero().amin(0).tolist()} to {mask.nonzero().amax(0).tolist()} and 15 around")
figure = answer.figure(inputs, model="a network that looks for red")
