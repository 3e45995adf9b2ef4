"""Models in which several parts read what layer ``a`` gave, and twins whose readers are plainly handed that tensor."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Same(nn.Module):
    """A tensor of its own, with the values of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


class View(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.shape)


class Keeping(nn.Module):
    """Keeps what it returns where others find it."""

    def forward(self, x: Tensor) -> Tensor:
        self.kept = [x.tanh()]
        return self.kept[0]


Forward = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """Convolutions of equal size around layer ``a``."""

    def __init__(self, a: nn.Module, forward: Forward) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.c, self.d, self.e = (nn.Conv2d(n, 6, 3, padding=1, dtype=torch.float64) for n in (3, 6, 6))
            self.fc = nn.Linear(6, 4, dtype=torch.float64)
        self.a, self.steps, self.finetune = a, forward, True

    def forward(self, x: Tensor) -> Any:
        y = self.steps(self, x)
        return self.fc((y * y).mean((2, 3)))


def after(m: Any, x: Tensor) -> Tensor:
    y = m.c(x)
    z = m.a(y)
    return m.d(z) + y  # type: ignore[no-any-return]


def before_and_after(m: Any, x: Tensor) -> Tensor:
    y = m.c(x)
    early = m.d(y).relu()
    z = m.a(y)
    return early + m.e(z) + 0.5 * y  # type: ignore[no-any-return]


def viewed(m: Any, x: Tensor) -> Tensor:
    y = m.c(x)
    early = m.d(y)
    return early + m.e(m.a(y)) + y  # type: ignore[no-any-return]


def rectified_after(m: Any, x: Tensor) -> Tensor:
    """Writes into what the layer gave."""
    z = m.a(m.c(x))
    early = 2 * z
    z = torch.relu_(z)
    return early + m.e(z)  # type: ignore[no-any-return]


def kept(m: Any, x: Tensor) -> Tensor:
    z = m.a(m.c(x))
    return m.d(z).relu() + m.e(m.a.kept[0])  # type: ignore[no-any-return]


def fine_tuned(m: Any, x: Tensor) -> Tensor:
    with torch.set_grad_enabled(m.finetune):
        z = m.a(m.c(x))
    return m.d(z).relu() + z  # type: ignore[no-any-return]


def partly_fine_tuned(m: Any, x: Tensor) -> Tensor:
    """One reader outside of the block, one in another block."""
    with torch.set_grad_enabled(m.finetune):
        z = m.a(m.c(x))
    one = m.d(z).relu()
    with torch.enable_grad():
        return one + m.e(z)  # type: ignore[no-any-return]


def switched_on(m: Any, x: Tensor) -> Tensor:
    torch.set_grad_enabled(m.finetune)
    return m.d(m.a(m.c(x))).relu()  # type: ignore[no-any-return]


@torch.enable_grad()
def decorated(m: Any, x: Tensor) -> Tensor:
    return m.d(m.a(m.c(x))).relu()  # type: ignore[no-any-return]


# How the tested model is written → the layer, the steps, and both of an equal model whose layers give tensors of their
# own that every reader is handed.
Case = tuple[Callable[[], nn.Module], Forward, Callable[[], nn.Module], Forward]


def of_a(*readers: Callable[[Any, Tensor], Tensor]) -> Forward:
    """Every reader reads what the layer gave."""

    def steps(m: Any, x: Tensor) -> Tensor:
        z = m.a(m.c(x))
        return sum((reader(m, z) for reader in readers), torch.zeros_like(z))

    return steps


def plain(m: Any, z: Tensor) -> Tensor:
    return z


AFTER = of_a(lambda m, z: m.d(z), plain)

BOTH = of_a(lambda m, z: m.d(z).relu(), lambda m, z: m.e(z), lambda m, z: 0.5 * z)

CASES: dict[str, Case] = {
    "in-place activation": (lambda: nn.ReLU(inplace=True), after, nn.ReLU, AFTER),
    "in-place hardswish": (lambda: nn.Hardswish(inplace=True), after, nn.Hardswish, AFTER),
    "identity, read after": (nn.Identity, after, Same, AFTER),
    "identity, read before": (nn.Identity, before_and_after, Same, BOTH),
    "dropout, read before": (nn.Dropout, before_and_after, Same, BOTH),
    "empty sequential": (nn.Sequential, before_and_after, Same, BOTH),
    "identity in a sequential": (lambda: nn.Sequential(nn.Identity()), before_and_after, Same, BOTH),
    "view": (View, viewed, View, viewed),
    "written into later": (Same, rectified_after, Same, of_a(lambda m, z: 2 * z, lambda m, z: m.e(z.relu()))),
    "kept by the layer": (Keeping, kept, nn.Tanh, of_a(lambda m, z: m.d(z).relu(), lambda m, z: m.e(z))),
    "gradient mode": (nn.Tanh, fine_tuned, nn.Tanh, of_a(lambda m, z: m.d(z).relu(), plain)),
    "gradient mode, twice": (
        nn.Tanh,
        partly_fine_tuned,
        nn.Tanh,
        of_a(lambda m, z: m.d(z).relu(), lambda m, z: m.e(z)),
    ),
    "gradient mode, for good": (nn.Tanh, switched_on, nn.Tanh, of_a(lambda m, z: m.d(z).relu())),
    "gradient mode, a decorator": (nn.Tanh, decorated, nn.Tanh, of_a(lambda m, z: m.d(z).relu())),
}
