"""``Peer``: another library as a contestant, called directly and not through a backend."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import torch
from torch import Tensor, nn

from attribution import Attribution
from attribution.agreement import Agreement, coarser, relative_tolerance
from benchmarks.cases import Case
from benchmarks.devices import on_host

Tier = Literal["default", "tuned", "compiled", "floor"]
"""As its documentation shows it, at its best setting, that with ``torch.compile`` on the model it is given, and what
cannot be done without."""

LARGE_BATCHES = ("SqueezeNet 1.1",)
"""The models that peers run on more than one image on the CPU, where a batch takes seconds per pair."""


@dataclass(frozen=True)
class Contestant:
    """A peer that is ready to run one case.

    Attributes:
        call: What is timed: tensor in, tensor on the device out.
        model: The peer's own copy of the model, on which work is counted.
        scale: Factor from the time of ``call`` to the whole question.
        sweep: Seconds by windows per forward, where the best was looked for.
        eager: The same call on the uncompiled model, where counts cannot see into ``call``.
    """

    call: Callable[[], Tensor]
    model: nn.Module
    scale: float = 1.0
    sweep: dict[int, float] | None = None
    eager: Callable[[], Tensor] | None = None


@dataclass(frozen=True)
class Check:
    """Whether a peer computed the same thing as the ``hooks`` backend.

    Attributes:
        agreements: Piece by piece; the row is timed only if all hold and one of them proves something.
        compared: What was held against what, and within which tolerance.
        stated: The known, explained difference with its size; empty where there is none.
    """

    agreements: list[Agreement]
    compared: str
    stated: str = ""


@dataclass(frozen=True, kw_only=True)
class Peer(ABC):
    """One library at one tier.

    Attributes:
        name: As rows print it.
        package: Its distribution.
        tier: How it is used.
        questions: The labels of `benchmarks.cases` that it can answer.
        models: The only models it is asked about; empty: all.
        accelerated: It runs on accelerators only.
    """

    name: str
    package: str
    tier: Tier
    questions: tuple[str, ...]
    models: tuple[str, ...] = ()
    accelerated: bool = False

    @abstractmethod
    def enter(self, case: Case, device: str, *, sweep: bool) -> Contestant:
        """Set it up for a case; nothing here is timed.

        Args:
            case: The question.
            device: Where.
            sweep: Look for its best setting rather than take a fixed one.
        """

    @abstractmethod
    def check(self, case: Case, device: str, answer: Tensor, ours: Attribution) -> Check:
        """Hold what ``call`` returned against the answer of ``hooks``."""

    def missing(self) -> str | None:
        """Why the library cannot be used here, or ``None``."""
        try:
            version(self.package)
        except PackageNotFoundError:
            return f"package {self.package} is not installed"
        return None

    def refuses(self, case: Case, device: str) -> str | None:
        """Why this case is beyond the library, or ``None``."""
        return None

    def asked(self, case: Case, device: str) -> bool:
        """Whether the case is one of the peer's, be it refused or not."""
        if case.question.label not in self.questions or (self.models and case.model not in self.models):
            return False
        if self.accelerated and on_host(device):
            return False
        return case.batch == 1 or not on_host(device) or case.model in LARGE_BATCHES

    @property
    def distribution(self) -> str:
        """Name and version."""
        return f"{self.package} {version(self.package)}"


def own(model: nn.Module) -> nn.Module:
    """A copy for one peer: what it hooks, freezes or writes into ``.grad`` meets nobody else."""
    return copy.deepcopy(model)


def classes(case: Case) -> list[int]:
    """One class per image."""
    return [row[0] for row in case.target(1) or []]


def tolerance(ours: Attribution) -> float:
    """The relative tolerance of the coarsest dtype on our side."""
    return relative_tolerance(coarser(torch.float32, ours.computes_in), host=ours.on_host)


def no_numpy(case: Case) -> str | None:
    """Why a library that goes through numpy refuses a case, or ``None``."""
    return "numpy knows no bfloat16" if case.dtype == "bfloat16" else None


def answered(ours: Attribution, peer: Peer, key: str, raw: Tensor) -> Attribution:
    """A peer's raw map in the form that `Technique.agreement` compares."""
    return replace(ours, backend=peer.name, maps={}, raw={key: raw})


def largest(agreements: Sequence[Agreement]) -> float:
    """The largest scaled difference."""
    return max(a.scaled for a in agreements)
