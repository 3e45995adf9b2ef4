"""A small net whose middle part may be replaced, and its own answer."""

import torch
from torch import Tensor, nn

from tests.conftest import noise

X = noise(3, 3, 9, 11)


class Net(nn.Module):
    """Its middle part may be replaced by anything that uses its norm."""

    def __init__(self) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(3)
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=source))
            self.norm.get_buffer("running_mean").copy_(torch.randn(4, generator=source))

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.middle(self.conv(x)).relu().mean((2, 3)))  # type: ignore[no-any-return]


def exact(model: nn.Module, x: Tensor = X) -> Tensor:
    """The model's own answer in eval mode, which leaves its mode as it was."""
    modes = [(module, module.training) for module in model.modules()]
    with torch.no_grad():
        found: Tensor = model.eval()(x)
    for module, mode in modes:
        module.training = mode
    return found
