"""``Member``: one technique of a call, with who computes it and what is asked of it."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from attribution.inputs.inputs import Inputs
from attribution.run import Run
from attribution.running.execution import Execution
from attribution.scores.reading import Asked
from attribution.technique import Maps, Technique


class Computes(Protocol):
    """What a call needs of an attributor; see `attribution.Attributor`."""

    model: nn.Module
    technique: Any
    execution: Execution
    backend: ClassVar[str]
    computes_in: ClassVar[torch.dtype | None]
    only_shows: ClassVar[bool]
    technique_type: ClassVar[type[Technique]]

    @property
    def family(self) -> Hashable:
        """Attributors of equal keys go through the model together."""

    def compute(self, run: Run[Any]) -> Maps:
        """The raw maps of its technique."""

    @classmethod
    def compute_many(cls, asked: Sequence[tuple[Any, Run[Any]]]) -> list[Maps]:
        """Those of several attributors of its family."""

    @classmethod
    def bytes_of_many(cls, asked: Sequence[tuple[Any, Any]], model: nn.Module, inputs: Inputs) -> int:
        """Bytes of activations that one image of them needs at once."""


@dataclass(frozen=True)
class Member:
    """One technique of a call.

    Attributes:
        asker: Who computes it.
        target: As the user gave it.
        label: The user's name for it where there are several; else ``""``.
        technique: As the user gave it.
        name: Technique and backend, behind the label where that is another name.
        only_reads: Whether nobody who computes it writes into the inputs, so that they may be the user's own. A class
            says so of itself alone: what is derived of an attributor or a technique may write there.
    """

    asker: Computes
    target: Asked = None
    label: str = ""
    technique: Technique = field(init=False)
    name: str = field(init=False)
    only_reads: bool = field(init=False)

    def __post_init__(self) -> None:
        technique: Technique = self.asker.technique
        own, kind = f"{technique.name}.{self.asker.backend}", type(self.asker)
        reads = "only_shows" in vars(kind) and kind.only_shows and type(technique) is kind.technique_type
        object.__setattr__(self, "technique", technique)
        object.__setattr__(self, "name", own if self.label in ("", technique.name) else f"{self.label}: {own}")
        object.__setattr__(self, "only_reads", reads)
