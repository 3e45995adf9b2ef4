"""``Technique``: one published method, its parameters and its conventions, whoever computes it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self

import torch
from torch import Tensor, nn

from attribution.agreement import Agreement, agree, coarser, relative_tolerance
from attribution.inputs.inputs import Inputs
from attribution.scores.classes import ClassScore

Kind = Literal["activation", "heatmap", "image"]
"""What a map is: layer values (N, D, h, w), a map per target (N, T, …), mostly a plane, or pictures (K, C, H, W)."""

Maps = dict[str, Tensor]
"""Layer name as given (or ``"input"`` for input space) → map."""


class Comparable(Protocol):
    """What an agreement needs to know of a result; ``Attribution`` satisfies it."""

    @property
    def raw(self) -> Mapping[str, Tensor]:
        """The backend's maps on their native grid, before ``finish``."""

    @property
    def target(self) -> Tensor | None:
        """(N, T) class indices."""

    @property
    def scores(self) -> Tensor | None:
        """(N, T), in the technique's own score."""

    @property
    def extras(self) -> Mapping[str, Tensor]:
        """Whatever else the backend told."""

    @property
    def computes_in(self) -> torch.dtype | None:
        """The dtype a library computes in where it is coarser than its input."""

    @property
    def on_host(self) -> bool:
        """Whether it was computed on a CPU."""


@dataclass(frozen=True, kw_only=True)
class Technique(ABC):
    """A published method with its parameters: *what* is computed, never how or by whom.

    A subclass is a frozen dataclass of parameters. It states its name and kind, checks its own fields in
    ``__post_init__``, and holds every convention that two backends must share.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    needs_target: ClassVar[bool]
    title: ClassVar[str] = ""
    """How figures call it, such as "Grad-CAM"; empty: by its name, in words."""
    default_score: ClassVar[ClassScore] = ClassScore(of="logit")
    """By what classes are explained where the user names them alone."""
    has_zero: ClassVar[bool] = True
    """Whether 0 means something on a map; else its colours go from its smallest to its largest value."""
    needs_inputs: ClassVar[bool] = True
    batch_of: ClassVar[Literal["images", "windows", "filters"]] = "images"
    """What ``Execution.batch_size`` counts. Images are split by the core; the rest by the backend."""
    compares_scores: ClassVar[bool] = True
    """Whether `agreement` goes by the size of the scores: only then a call takes the time to find the largest one."""

    needs_attention: ClassVar[bool] = False
    """Whether it reads attention, so that a model without any is refused."""

    takes_gradients: ClassVar[bool] = True
    """Whether it may take gradients through the model: recurrent layers run without cuDNN then."""
    takes_integers: ClassVar[bool] = False
    """Whether explained inputs may be integers or bools, which no noise, no fading and no gradient makes sense of."""

    @property
    def signed(self) -> bool:
        """Whether negative values mean something, so that pictures are drawn symmetric about zero."""
        return False

    @property
    def words(self) -> str:
        """Its title; without one its name, in words."""
        return self.title or self.name.replace("_", " ").capitalize()

    def unit_of(self, score: str) -> str:
        """The unit of a map's values, of a score of this name; by default that of the score. Empty: none.

        Args:
            score: ``"logit"``, ``"probability"``, …
        """
        return score

    def check(self, inputs: Inputs) -> None:  # noqa: B027  # most techniques have nothing to refuse
        """Refuse what this technique cannot do on these inputs, before any work; nothing by default.

        Raises:
            InputError: The parameters do not fit the inputs.
        """

    def resolve(self, model: nn.Module, inputs: Inputs) -> Self:
        """Fill in what the user left open (default layers); the same object where nothing is open.

        Args:
            model: The isolated model, eval mode.
            inputs: Of the call.
        """
        return self

    def rows(self, part: slice, inputs: Inputs) -> Self:
        """This technique for a part of the examples: the same object, unless a field belongs to single examples.

        Args:
            part: Of the examples.
            inputs: All of them.
        """
        return self

    def named(self, model: nn.Module) -> tuple[str, ...]:
        """The layers that the user named, which must exist before anything runs; none by default."""
        return ()

    def start(self, model: nn.Module) -> Tensor:
        """The inputs of a technique that makes its own (``needs_inputs`` is False)."""
        raise NotImplementedError(f"{type(self).__name__} needs inputs")

    @abstractmethod
    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        """From the backend's raw maps to what the user sees; the same code for every backend."""

    def drawn(self, maps: Mapping[str, Tensor]) -> tuple[Maps, str]:
        """Maps as a figure shows them, and what was done to them for it, in a few words; by default nothing."""
        return dict(maps), ""

    def agreement(self, a: Comparable, b: Comparable) -> list[Agreement]:
        """Do two backends give the same answer? Raw maps, per layer × image × target.

        By default max|a − b| ≤ tolerance · max|map|, with the tolerance of the coarser dtype.
        """
        return [
            agree(name, x, y, relative=relative_tolerance(dtype, host=a.on_host and b.on_host))
            for name, x, y, dtype in paired_maps(a, b, by_target=self.needs_target)
        ]

    @classmethod
    def example(cls) -> Self:
        """An instance for small models whose layers are ``stem``, ``body`` and ``head``; no parameters by default."""
        return cls()


def paired_maps(
    a: Comparable, b: Comparable, *, by_target: bool, only: str | None = None
) -> list[tuple[str, Tensor, Tensor, torch.dtype]]:
    """Cut two results into comparable pieces: (name, map of a, map of b, coarser dtype).

    One piece per layer × image, and × target where ``by_target``; of the map named ``only`` where one is. A
    layer, image or target that only one side has comes with a partner of another shape, which never holds.
    """
    pieces = []
    for key in [only] if only else sorted({*a.raw, *b.raw}):
        x, y = (side.raw.get(key, torch.empty(0, device="cpu")) for side in (a, b))
        dtype = coarser(x.dtype, y.dtype, a.computes_in, b.computes_in)
        if x.shape != y.shape or not x.ndim:
            pieces.append((key, x, y, dtype))
            continue
        for n in range(x.shape[0]):
            if not by_target:
                pieces.append((f"{key} · image {n}", x[n], y[n], dtype))
                continue
            for t in range(x.shape[1]):
                label = int(a.target[n, t]) if a.target is not None else t  # of other scores their place
                pieces.append((f"{key} · image {n} · target {label}", x[n, t], y[n, t], dtype))
    return pieces
