"""``Attributor``: one technique by one backend. The one abstract class that a backend implements."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Generic, TypeVar, final

import torch
from torch import nn

from attribution.calls import answers
from attribution.errors import InputError, ModelError
from attribution.inputs.inputs import Inputs
from attribution.isolation.context import admit
from attribution.members import Member
from attribution.result import Attribution
from attribution.run import Run as Run
from attribution.running.execution import Execution
from attribution.scores.reading import Asked
from attribution.technique import Maps, Technique

TechniqueT = TypeVar("TechniqueT", bound=Technique)


class Attributor(ABC, Generic[TechniqueT]):
    """One technique by one backend.

    A subclass names its technique and its backend and implements `compute`; it adds no parameters and no
    defaults. The constructor stores; it neither runs nor changes the model.

    Args:
        model: Any eager module; compiled and data-parallel wrappers are unwrapped.
        technique: What to compute.
        execution: How to run it.

    Raises:
        ModelError: ``model`` is not a module, lies on the meta device, or was never run and has lazy parameters.
        InputError: ``technique`` is not of ``technique_type``, or ``execution`` no `Execution`.
    """

    technique_type: ClassVar[type[Technique]]
    backend: ClassVar[str]
    computes_in: ClassVar[torch.dtype | None] = None
    """Set where a library computes coarser than its input."""
    reference: ClassVar[bool] = False
    """Whether it is what another library says, right or wrong: `compare` leaves it out unless it is named."""

    def __init__(self, model: nn.Module, technique: TechniqueT, execution: Execution = Execution()) -> None:
        if not isinstance(model, nn.Module):
            hint = ", or FunctionModel(function)" if callable(model) and not isinstance(model, type) else ""
            raise ModelError(f"model is a {type(model).__name__}; give a torch.nn.Module{hint}")
        admit(model)
        if not isinstance(technique, self.technique_type):
            hint = f"{self.technique_type.__name__}(…)"
            raise InputError(f"{type(self).__name__} computes {hint}; technique is {technique!r}")
        if not isinstance(execution, Execution):
            raise InputError(f"execution is {execution!r}; give attribution.Execution(…)")
        self.model = model
        self.technique = technique
        self.execution = execution

    only_shows: ClassVar[bool] = False
    """Whether no method of the class writes into the inputs of a run, or hands them on but by ``run.forward``.

    ``run.forward`` shows the model a copy, so that ``run.inputs`` may be the user's own. Each subclass says it anew.
    """

    @abstractmethod
    def compute(self, run: Run[TechniqueT]) -> Maps:
        """The raw maps on their native grid; first axis images (or filters), no graph needed.

        What the user left open is filled in on ``run.technique``.
        """

    @classmethod
    def compute_many(cls, asked: Sequence[tuple["Attributor[Any]", Run[Any]]]) -> list[Maps]:
        """The raw maps of several techniques for the same inputs, each as `compute` gives them; one by one by default.

        A family whose techniques can share forwards and gradients implements it beside `compute`, for attributors that
        inherit both. Their techniques are asked about the same score, count the same as ``batch_size``, and have equal
        `shared`. What it raises is no answer to the user: each technique is computed alone then.

        Args:
            asked: At least two attributors, with the run of each. Each run has its own technique and record, and is
                given the clean output by itself; the inputs of all lie on the same memory.
        """
        return [attributor.compute(run) for attributor, run in asked]

    @property
    def shared(self) -> Hashable:
        """What techniques of a family must have in common to be handed to `compute_many` together; nothing more."""
        return None

    @classmethod
    def bytes_of_many(cls, asked: Sequence[tuple["Attributor[Any]", Any]], model: nn.Module, inputs: Inputs) -> int:
        """`image_bytes` of several techniques in one pass; by default the most that one of them needs.

        Args:
            asked: Attributors, each with its technique as `image_bytes` gets it.
            model: Isolated, eval mode.
            inputs: Of the call.
        """
        return max(attributor.image_bytes(model, technique, inputs) for attributor, technique in asked)

    @final
    @property
    def family(self) -> Hashable:
        """Attributors of equal keys go through the model together; one that inherits no `compute_many` goes alone."""
        both = {"compute", "compute_many"}
        maker = next(base for base in type(self).__mro__ if both & vars(base).keys())
        if maker is Attributor or "compute_many" not in vars(maker):
            return self
        return maker, self.technique.batch_of, self.shared

    @final
    def attribute(self, inputs: Any = None, target: Asked = None) -> Attribution:
        """Check, isolate, compute, finish. The model, the inputs and torch's modes are as found on every exit.

        Args:
            inputs: Float (N, C, H, W), or another form of `Inputs.of`, on the model's device; ``None`` for a technique
                that makes its own.
            target: One class for all images, one per image, (N, T), ``"all"``, or ``None`` for the prediction; a score;
                or a function of the model's output.

        Raises:
            AttributionError: Bad input, before any work; see the technique for what it refuses.
        """
        (result,) = answers([Member(self, target)], inputs)
        return result

    def image_bytes(self, model: nn.Module, technique: TechniqueT, inputs: Inputs) -> int:
        """Bytes of activations that one image needs at once, for ``memory_budget``; 0: not known, images stay together.

        Args:
            model: Isolated, eval mode.
            technique: With its default layers filled in.
            inputs: Of the call.
        """
        return 0
