"""``Settled``: what a call inside of ``prepared`` has found out and a further call of the same question need not."""

from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor, nn

from attribution.inputs.inputs import Inputs
from attribution.isolation.known import known
from attribution.isolation.structural_copy import Shadow
from attribution.members import Member
from attribution.running.execution import Execution
from attribution.scores.score import Score
from attribution.technique import Technique

Record = dict[str, str | int | float]


_PLAIN = (type(None), int, str)
"""Of a target that names one class or none; such are compared without a look at values."""

_LATEST = None
"""Where a block keeps what it settled last, beside what it keeps by question."""


@dataclass(frozen=True)
class Settled:
    """All that depends on the model's structure, the question and the form of the inputs, and on no value.

    Attributes:
        shadow: The copy that was proved.
        member: Who asked.
        wrapper: The class of the model as it was given.
        form: Shape and dtype of the inputs.
        reference: The tensor of the model whose dtype the inputs have; ``None`` where it has no floats.
        dtype: Of that tensor. The user may change it inside (``model.half()``), and everything with it.
        axes: Of the inputs.
        told: What is known of them by their form, see `Inputs.told`.
        asked: The score, which fits as many examples.
        record: Who computed, on what, where, and with which versions.
    """

    shadow: Shadow
    member: Member
    wrapper: type[nn.Module]
    form: tuple[torch.Size, torch.dtype]
    reference: Tensor | None
    dtype: torch.dtype | None
    axes: Mapping[str, str]
    told: Mapping[str, Any]
    asked: Score
    record: Record

    @classmethod
    def of(cls, model: nn.Module, shadow: Shadow, member: Member, start: Inputs, asked: Score, record: Record) -> Self:
        """Of a call that was answered.

        Args:
            model: The user's, eager.
            shadow: The copy that was run.
            member: Who asked.
            start: The inputs.
            asked: The score.
            record: Of the call.
        """
        floats = (each for each in chain(model.parameters(), model.buffers()) if each.is_floating_point())
        reference = next(floats, None)
        dtype = None if reference is None else reference.dtype
        form, wrapper = (start.shape, start.dtype), type(member.asker.model)
        return cls(shadow, member, wrapper, form, reference, dtype, start.axes, start.told, asked, record)

    def repeats(self, member: Member, inputs: Tensor) -> bool:
        """Whether the very question is asked again, by the same objects."""
        mine, theirs = self.member.asker, member.asker
        return (
            self.member.technique is member.technique
            and mine.execution is theirs.execution
            and type(mine) is type(theirs)
            and self.wrapper is type(theirs.model)
            and self.member.target == member.target
            and self.form == (inputs.shape, inputs.dtype)
        )

    @property
    def holds(self) -> bool:
        """Whether the model still has the dtype that the inputs were checked against."""
        return self.reference is None or self.reference.dtype == self.dtype


def settles(members: Sequence[Member], inputs: Any) -> bool:
    """Whether a call is one of those that settle anything.

    That is one technique, asked about classes by number or the predicted one, for one plain tensor on the host.
    """
    if len(members) > 1 or type(inputs) is not Tensor or inputs.layout != torch.strided or inputs.is_nested:
        return False
    target = members[0].target
    return inputs.device.type == "cpu" and type(target) in _PLAIN


def repeated(block: Mapping[Hashable, Any], member: Member, inputs: Tensor) -> Settled | None:
    """What an earlier call of an equal question settled, if that still holds."""
    found: Settled | None = block.get(_LATEST)
    if found is None or not found.repeats(member, inputs):
        try:
            found = block.get(_question(member, type(member.asker.model), (inputs.shape, inputs.dtype)))
        except TypeError:  # a plugin's technique may hold what has no hash
            return None
    return found if found is not None and found.holds else None


def asked_last(
    model: nn.Module, technique: Technique, backend: str, target: Any, execution: Execution
) -> Member | None:
    """Who was asked last inside of ``prepared``, where the same objects are asked the same."""
    block = known.prepared.get(model) if isinstance(model, nn.Module) else None
    member: Member | None = None if block is None else block.asked
    if member is None or type(target) not in _PLAIN or type(member.target) is not type(target):
        return None
    asker = member.asker
    same = asker.technique is technique and asker.execution is execution and asker.model is model
    return member if same and asker.backend == backend and member.target == target else None


def note_asked(member: Member) -> None:
    """Keep who is asked, for `asked_last`."""
    block = known.prepared.get(member.asker.model)
    if block is not None:
        block.asked = member


def keep(block: dict[Hashable, Any], found: Settled) -> None:
    """Keep what a call settled for those that follow."""
    block[_LATEST] = found
    with suppress(TypeError):
        block[_question(found.member, found.wrapper, found.form)] = found


def _question(member: Member, wrapper: type, form: tuple[torch.Size, torch.dtype]) -> Hashable:
    return type(member.asker), wrapper, member.technique, member.asker.execution, member.target, form
