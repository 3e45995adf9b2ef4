"""``Member``: one technique of a call, with who computes it and what is asked of it."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
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
    """

    asker: Computes
    target: Asked = None
    label: str = ""

    @property
    def technique(self) -> Technique:
        """As the user gave it."""
        technique: Technique = self.asker.technique
        return technique

    @property
    def name(self) -> str:
        """Technique and backend, behind the label where that is another name."""
        own = f"{self.technique.name}.{self.asker.backend}"
        return own if self.label in ("", self.technique.name) else f"{self.label}: {own}"
