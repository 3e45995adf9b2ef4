"""Small models, each with one habit that trips attribution libraries; all with layers ``stem``, ``body``, ``head``."""

import copy
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint

from attribution.testing.models.small import calibrated


class Planned(Exception):
    """What a model raises when a `Watch` says so; no library raises it by itself."""


class Watch:
    """Shared by a model and its copies: counts forwards, and makes one of them fail.

    Attributes:
        forwards: How many forwards reached the watched place.
        images: How many images they held.
        error: What to raise; ``None``: nothing.
        after: How many times the place is passed before it raises.
        backward: Raise in the backward pass instead.
        raised: Whether it has.
    """

    def __init__(self) -> None:
        self.forwards = self.images = self.after = 0
        self.error: BaseException | None = None
        self.backward = self.raised = False

    def plan(self, error: BaseException | None, *, after: int = 0, backward: bool = False) -> None:
        """Fail with ``error`` from now on, or no longer."""
        self.error, self.after, self.backward, self.raised = error, after, backward, False

    def reach(self, *, backward: bool) -> None:
        """Called by the model at the watched places."""
        if self.error is None or backward != self.backward:
            return
        self.after -= 1
        if self.after < 0:
            self.raised = True
            raise self.error

    def __deepcopy__(self, memo: object) -> "Watch":
        return self


class Watched(nn.Module):
    """The identity, under the eyes of a `Watch`."""

    def __init__(self, watch: Watch, *, counts: bool = False) -> None:
        super().__init__()
        self.watch = watch
        self.counts = counts

    def forward(self, x: Tensor) -> Tensor:
        """``x``; fails as planned."""
        if self.counts:
            self.watch.forwards += 1
            self.watch.images += len(x)
        self.watch.reach(backward=False)
        seen: Tensor = _Watched.apply(x, self.watch)
        return seen


class _Watched(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, watch: Watch) -> Tensor:
        ctx.watch = watch  # type: ignore[attr-defined]
        return x.clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        ctx.watch.reach(backward=True)  # type: ignore[attr-defined]
        return grads[0], None


class Residual(nn.Module):
    """Adds its input to the output of a norm, in place or not."""

    def __init__(self, *, inplace: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.adds_in_place = inplace

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6, h, w) → the same."""
        out: Tensor = self.norm(self.conv(x))
        if not self.adds_in_place:
            return out + x
        out += x
        return out


class Reused(nn.Module):
    """One convolution that runs twice, or two that share their weights and run once each."""

    def __init__(self, *, twice: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(6, 6, 3, padding=1)
        self.second = self.first if twice else copy.deepcopy(self.first)
        if not twice:
            self.second.weight, self.second.bias = self.first.weight, self.first.bias

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6, h, w) → the same."""
        out: Tensor = self.second(torch.tanh(self.first(x)))
        return out


class Pair(nn.Module):
    """Returns a tuple whose first item is a map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 6, h, w) → a map and its mean."""
        out = self.conv(x)
        return out, out.mean(dim=(2, 3))


class Unpaired(nn.Module):
    """Holds a layer that returns a tuple; another that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.idle = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6, h, w) → the same."""
        out: Tensor = self.pair(x)[0]
        return out


class Checkpointed(nn.Module):
    """Runs its forward again during the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6, h, w) → the same."""
        out: Tensor = checkpoint(self.conv, x, use_reentrant=False)
        return out


class Writer(nn.Module):
    """Halves its input, in place or not."""

    def __init__(self, *, inplace: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.writes = inplace

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, 6, H, W)."""
        out: Tensor = self.conv(x.mul_(0.5) if self.writes else x * 0.5)
        return out


class Restless(nn.Module):
    """Draws random numbers also in eval mode and counts its calls in a buffer."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6, h, w) → the same, with a little noise."""
        self.calls += 1
        out: Tensor = self.conv(x)
        return out + 1e-3 * torch.rand_like(out)


class Wrapped(nn.Module):
    """A model whose logits come as one item of a dict or a tuple; its own layers keep their names."""

    def __init__(self, net: nn.Module, *, form: str) -> None:
        super().__init__()
        self.stem, self.body, self.head = (net.get_submodule(name) for name in ("stem", "body", "head"))
        self.rest = nn.Sequential(*list(net.children())[1:])  # after them: a module goes by its first name
        self.form = form

    def forward(self, x: Tensor) -> object:
        """Logits and something else."""
        logits = self.rest(self.stem(x))
        return {"logits": logits, "aux": x.mean()} if self.form == "dict" else (x.mean(), logits)


def _stem() -> nn.Module:
    return nn.Conv2d(3, 6, 3, padding=1)


def _conv() -> nn.Module:
    return nn.Conv2d(6, 6, 3, padding=1)


_HABITS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "in-place ReLU": (_stem, lambda: nn.Conv2d(6, 6, 3)),
    "in-place sum": (_stem, lambda: Residual(inplace=True)),
    "reused layer": (_stem, Reused),
    "tuple layer": (_stem, Unpaired),
    "checkpointed": (_stem, Checkpointed),
    "writes its input": (lambda: Writer(inplace=True), _conv),
    "spectral norm": (_stem, lambda: spectral_norm(_conv())),
    "closure": (_stem, Restless),
}
_PLAIN: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "in-place ReLU": _HABITS["in-place ReLU"],
    "in-place sum": (_stem, lambda: Residual(inplace=False)),
    "reused layer": (_stem, lambda: Reused(twice=False)),
    "writes its input": (lambda: Writer(inplace=False), _conv),
}

AWKWARD: tuple[str, ...] = tuple(_HABITS)
"""The habits that `awkward` knows."""


def awkward(
    habit: str, *, watch: Watch | None = None, plain: bool = False, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """A model with one of the `AWKWARD` habits, in eval mode, five classes, weights from a fixed seed.

    ``stem`` is (N, 6, H, W); ``body`` works at half that size and lies between two places that ``watch`` sees, so that
    a forward or a backward pass can be made to fail on both of its sides. Dropout and batch norm make train mode
    matter.

    Args:
        habit: One of `AWKWARD`.
        watch: Counts forwards and makes them fail; ``None``: a new one that does neither.
        plain: The same function of the same weights without the habit, where there is such a twin.
        dtype: Of the parameters.
    """
    watch = watch or Watch()
    stem, body = (_PLAIN if plain else _HABITS)[habit]

    def build() -> nn.Module:
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            stem=stem(),
            stem_relu=nn.ReLU(inplace=not plain),
            pool=nn.MaxPool2d(2),
            before=Watched(watch, counts=True),
            body=body(),
            body_relu=nn.ReLU(inplace=not plain),
            after=Watched(watch),
            norm=nn.BatchNorm2d(6),
            dropout=nn.Dropout(0.5),
            head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
        )
        return nn.Sequential(parts)

    model = calibrated(build, 0, dtype)
    watch.forwards = watch.images = 0
    if habit == "closure" and not plain:
        original = model.forward
        model.forward = lambda x: original(x)
    return model
