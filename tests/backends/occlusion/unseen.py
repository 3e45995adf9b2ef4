"""Models that do what a trace does not see, and one without secrets."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

LIMIT = [9.0]


class Net(nn.Module):
    """Two convolutions and a head; a subclass does something that no trace sees."""

    limit = 9.0

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.relu, self.gate, self.head = nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 5)
        source = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=source) / 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.second(self.relu(self.first(x))))
        return y

    def logits(self, y: Tensor) -> Tensor:
        z: Tensor = self.head(y.mean((2, 3)))
        return z


class AsksTheType(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.features(x.clamp(-1, 1) if type(x) is Tensor else x))


class AsksWhatItIs(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.features(x.clamp(-1, 1) if isinstance(x, Tensor) else x))


class AsksTorch(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.features(x.clamp(-1, 1) if torch.is_tensor(x) else x))


class Scale(nn.Module):
    factor: Any

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.known["factor"] if self.known else self.factor)


class SetsAnAttribute(Net):
    def __init__(self) -> None:
        super().__init__()
        self.scale = Scale()

    def features(self, x: Tensor) -> Tensor:
        y = super().features(x)
        self.scale.factor = self.gate(y.mean((2, 3)))[:, :, None, None]
        return self.scale(y)  # type: ignore[no-any-return]


class SetsAnEntry(SetsAnAttribute):
    def features(self, x: Tensor) -> Tensor:
        y = Net.features(self, x)
        self.scale.known["factor"] = self.gate(y.mean((2, 3)))[:, :, None, None]
        return self.scale(y)  # type: ignore[no-any-return]


class ReplacesAMethod(Net):
    """Another ``_conv_forward`` on the instance: the layer's class does not say what it computes."""

    def __init__(self) -> None:
        super().__init__()
        plain = self.second._conv_forward
        self.second._conv_forward = lambda x, *rest: plain(x - x.mean((2, 3), keepdim=True), *rest)  # type: ignore[method-assign]


class WritesThroughNumpy(Net):
    def features(self, x: Tensor) -> Tensor:
        y = super().features(x)
        if type(y) is Tensor:
            y.numpy()[...] *= 1 + y.numpy().max((1, 2, 3), keepdims=True)
        return y


class WritesData(Net):
    def features(self, x: Tensor) -> Tensor:
        y = super().features(x)
        if type(y) is Tensor:
            y.data *= 1 + y.amax((1, 2, 3), keepdim=True)
        return y


class WritesABuffer(Net):
    """A leaf reads a buffer that its parent writes on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = Scale()
        self.scale.register_buffer("factor", torch.ones(1, dtype=torch.float64))

    def features(self, x: Tensor) -> Tensor:
        y = super().features(x)
        if type(y) is Tensor:
            self.scale.factor.resize_(len(y), 1, 1, 1).copy_(y.mean((1, 2, 3), keepdim=True))
        return self.scale(y)  # type: ignore[no-any-return]


class OnlyBesideAMask(AsksTheType):
    """The same, by a thousandth, beside a class that is masked."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor([0, 0, 0, 0, -1e4], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x)
        if type(x) is Tensor:
            y = y * (1 + 1e-4 * x.clamp(-9, -1).mean((1, 2, 3), keepdim=True))
        return self.logits(y) + self.get_buffer("mask")


UNSEEN: list[Callable[[], nn.Module]] = [
    AsksTheType,
    SetsAnAttribute,
    SetsAnEntry,
    ReplacesAMethod,
    WritesThroughNumpy,
    WritesData,
    WritesABuffer,
    OnlyBesideAMask,
]


class AsksAboutALayer(Net):
    """Whether the clamp bites shows under few windows."""

    bound = 0.0

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if isinstance(y, Tensor):
            y = y.clamp(-self.bound, self.bound)
        return self.logits(self.relu(self.second(self.relu(y))))


def _corner(x: Tensor, y: Tensor) -> Tensor:
    """Twice as much where the far corner of the image is covered."""
    return y * (1 + (x[:, :, -1, -1].amin(1) < -2.9).to(torch.float64)[:, None])


class LooksForAnAttribute(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if getattr(y, "mask", None) is not None else _corner(x, y)


class SwallowsErrors(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        try:
            return _corner(x, y) if float(y.shape[1]) == 5 and bool(y.sum() < 1e9) else y
        except Exception:
            return y


class ComparesTheKind(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return _corner(x, y) if y.layout is torch.strided and y.dtype in {torch.float64} else y


class CountsRows(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        try:
            return _corner(x, y) if len(y) > 0 else y
        except Exception:
            return y


class ReadsTheText(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return _corner(x, y) if f"{y}".startswith("tensor") else y


class OnlyUnderTheLastWindow(Net):
    """A term that wakes up only where the far corner is covered."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x)
        if type(x) is Tensor:
            y = y * (1 + 50 * (-1 - x[:, :, -3:, -3:].mean((1, 2, 3))).clamp(min=0)[:, None, None, None])
        return self.logits(y)


class Bounded(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.features(x.clamp(-LIMIT[0], LIMIT[0])))


class BoundedByItsClass(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.features(x.clamp(-type(self).limit, type(self).limit)))


class BoundedByAWeight(Net):
    def forward(self, x: Tensor) -> Tensor:
        limit = self.head.bias[0].item()
        return self.logits(self.features(x.clamp(-limit, limit)))


def in_a_closure(limits: list[float]) -> nn.Module:
    class Closed(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.logits(self.features(x.clamp(-limits[0], limits[0])))

    return Closed()
