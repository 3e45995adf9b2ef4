"""Small networks of float32 convolutions, each with something that must or must not be folded, packed or added."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations


class Base(nn.Module):
    """Two convolutions, a norm with statistics of its own, and a linear layer; a subclass changes the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.norm, self.relu, self.head = norm(6), nn.ReLU(), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.middle(x).mean((2, 3)))

    def middle(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.relu(self.norm(self.a(x))))
        return y


def norm(channels: int, **how: Any) -> nn.BatchNorm2d:
    """With weights and statistics that change what goes through."""
    made = nn.BatchNorm2d(channels, **how)
    with torch.no_grad():
        for tensor in (made.running_mean, made.running_var, made.weight, made.bias):
            if tensor is not None:
                tensor.copy_(torch.rand(channels) + 0.5)
    return made


class NoAffine(Base):
    def __init__(self) -> None:
        super().__init__()
        self.norm = norm(6, affine=False)


class OfTheBatch(Base):
    def __init__(self) -> None:
        super().__init__()
        self.norm = norm(6, track_running_stats=False)


class Twice(Base):
    """One convolution before two norms, and one norm behind two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.other = norm(6)

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(self.b(self.norm(self.a(x)))) + self.other(self.b(self.a(x)))  # type: ignore[no-any-return]


class TwoReaders(Base):
    def middle(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.norm(y) * y.tanh()  # type: ignore[no-any-return]


class NormFirst(Base):
    def middle(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.relu(self.norm(torch.cat([self.a(x)[:, :2], self.a(x.flip(-1))[:, :4]], 1))))
        return y


class Functional(Base):
    def middle(self, x: Tensor) -> Tensor:
        it = self.norm
        return F.relu(F.batch_norm(self.a(x), it.running_mean, it.running_var, it.weight, it.bias), inplace=True)


class Dropping(Base):
    def middle(self, x: Tensor) -> Tensor:
        return F.dropout2d(self.norm(self.a(x)), 0.5, self.training)


class Parametrized(Base):
    def __init__(self) -> None:
        super().__init__()
        self.a = parametrizations.weight_norm(self.a)


class ReadsWeights(Base):
    def middle(self, x: Tensor) -> Tensor:
        return self.norm(self.a(x)) + F.conv2d(x, self.a.weight, self.a.bias, padding=1) * self.b.weight.mean()  # type: ignore[no-any-return]


class Tied(Base):
    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.c.weight = self.b.weight

    def middle(self, x: Tensor) -> Tensor:
        return self.c(self.norm(self.b(self.a(x))).relu_())  # type: ignore[no-any-return]


class Shortcuts(Base):
    """Sums on either side, in place, of another shape, with a number, and of a thing with itself."""

    def middle(self, x: Tensor) -> Tensor:
        y = self.relu(self.a(x))
        z = self.norm(self.b(y))
        z += y
        z = F.relu(z)
        z = z + self.b(z)
        z = torch.add(self.b(z), z.mean((2, 3), keepdim=True))
        z = self.b(z) + 1
        u = self.b(z)
        v = y.clone()
        v += self.b(v)
        return u + u + v  # type: ignore[no-any-return]


class WritesBetween(Base):
    """What a convolution reads is changed before its output is added to."""

    def middle(self, x: Tensor) -> Tensor:
        y = self.norm(self.a(x))
        z = self.b(y)
        y.relu_()
        return z + y  # type: ignore[no-any-return]


class WritesBeforeNorm(Base):
    """What a convolution read is changed before the norm that is folded into it, by a view as well."""

    def middle(self, x: Tensor) -> Tensor:
        y = self.a(x)
        z = self.b(y)
        y[:, :3].relu_()
        z = self.norm(z)
        u = self.b(z)
        torch.ops.aten.clamp_.default(z, -0.1, 0.2)
        return self.norm(u) + y + z  # type: ignore[no-any-return]


class WritesBeforeSilu(Base):
    def __init__(self) -> None:
        super().__init__()
        self.silu = nn.SiLU()

    def middle(self, x: Tensor) -> Tensor:
        y = self.a(x)
        z = self.b(y)
        y += 1
        return self.silu(z) + y  # type: ignore[no-any-return]


class Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp_(-0.1, 0.2)


class WritesUntold(Base):
    """By a module of the user's, which has no ``inplace``; and by an operator of aten."""

    def __init__(self) -> None:
        super().__init__()
        self.clamp = Clamp()

    def middle(self, x: Tensor) -> Tensor:
        y = self.norm(self.a(x))
        z = self.b(y)
        u = self.clamp(y)
        y = z + y
        z = self.b(y)
        torch.ops.aten.add_.Scalar(y, 3)
        return z + y * u  # type: ignore[no-any-return]


class Silu(Base):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.SiLU(inplace=True)  # type: ignore[assignment]


class Odd(Base):
    """Strides, dilations, groups, one channel, padding by name, of another kind, and unlike on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(3, 1, (3, 2), stride=(1, 2), padding=(2, 0)), norm(1), nn.ReLU6(),
            nn.Conv2d(1, 4, 3, padding="same", dilation=(2, 1)), nn.Hardswish(),
            nn.Conv2d(4, 4, (1, 3), padding="valid", groups=4), nn.Conv2d(4, 6, 2, padding="same"), norm(6), nn.ELU(),
            nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect", groups=2), norm(6),
        )  # fmt: skip

    def middle(self, x: Tensor) -> Tensor:
        y: Tensor = self.first(x)
        return y


class Listed(Base):
    """The logits among other things."""

    def forward(self, x: Tensor) -> Any:
        y = self.a(x)
        return {"map": y, "logits": self.head(self.norm(y).mean((2, 3)))}


WHOLE: dict[type[nn.Module], tuple[int, int]] = {
    Base: (2, 1),
    NoAffine: (2, 1),
    OfTheBatch: (2, 0),
    Twice: (4, 3),
    TwoReaders: (1, 0),
    NormFirst: (3, 0),
    Functional: (1, 0),
    Dropping: (1, 1),
    Parametrized: (1, 0),
    Tied: (3, 1),
    Shortcuts: (7, 1),
    WritesBetween: (2, 1),
    WritesBeforeNorm: (3, 2),
    WritesBeforeSilu: (2, 0),
    WritesUntold: (3, 1),
    Silu: (2, 1),
    Odd: (3, 1),
    Listed: (1, 0),
}
"""How many convolutions of each are packed, and how many norms are folded."""


def net(kind: Callable[[], nn.Module]) -> nn.Module:
    """In eval mode, the same in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return kind().eval()
