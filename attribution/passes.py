"""``Pass``: the techniques of a call that go through the model together, from their inputs to their raw maps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from attribution.beginning import in_parts
from attribution.errors import AttributionError, ModelError, NonFiniteError, PluginError, named
from attribution.inputs.inputs import Inputs
from attribution.isolation.rows import CROWD, NO_ROOM, mixing
from attribution.members import Member
from attribution.run import Run
from attribution.running.execution import Execution, first_line, in_backward, lost, out_of_memory
from attribution.running.guards import Guards
from attribution.running.memory import no_room
from attribution.running.offload import Offload, copies_beside
from attribution.running.values import alone
from attribution.scores.score import Score
from attribution.technique import Maps, Technique

_Run = Run[Technique]  # written out in a signature inside of a function it would be made anew by each call
_Maker = Callable[[int, Inputs], _Run]
"""The run of the member at a place, for a part of the inputs."""


@dataclass
class Pass:
    """Techniques of one family, and what they start from.

    Attributes:
        members: At least one.
        start: A copy of the inputs that nobody else has, or the user's own where no member writes there.
        asked: The score of each.
        techniques: With their default layers filled in; by `resolve`.
        runs: Of each technique, one for each part of the images; by `compute`.
        maps: Likewise.
        apart: Why images go through the model one by one; ``None`` where they need not.
        why: What is told of a technique that is computed alone, because it failed with others.
        label: Who has failed where all have.
    """

    members: Sequence[Member]
    start: Inputs
    asked: Sequence[Score]
    techniques: Sequence[Technique] = ()
    runs: list[Sequence[Run[Technique]]] = field(default_factory=list)
    maps: list[Sequence[Maps]] = field(default_factory=list)
    apart: str | None = None
    why: str = ""
    label: str = field(init=False)

    def __post_init__(self) -> None:
        self.label = ", ".join(member.label for member in self.members)

    def resolve(self, model: nn.Module) -> None:
        """Fill in what the user left open.

        Raises:
            AttributionError: There is nothing to fill in.
        """
        found = []
        for member in self.members:
            with named(member.label):
                found.append(member.technique.resolve(model, self.start))
        self.techniques = found

    def compute(
        self, model: nn.Module, execution: Execution, guards: Guards, offload: Offload | None, *, anew: bool
    ) -> str:
        """The raw maps of all techniques, in parts of as many images as fit.

        Returns:
            Why each technique must be computed alone, where they fail together; else nothing.

        Raises:
            AttributionError: One of them fails.
        """
        with named(self.label):
            at_once, self.apart = self._together(model, execution, guards, anew=anew)
        if self.apart is not None:
            incremental = execution.incremental if self.apart == NO_ROOM else False
            execution = replace(execution, batch_size=1, incremental=incremental)
        for rows, part, scores in in_parts(self.start, self.asked, at_once):

            def run(place: int, inputs: Inputs, rows: slice = rows, scores: Sequence[Score] = scores) -> _Run:
                technique = self.techniques[place]
                return Run(
                    model,
                    technique.rows(rows, self.start),
                    inputs,
                    execution,
                    asked=scores[place],
                    apart=self.apart,
                    name=self.members[place].name,
                    guards=guards,
                    compares_scores=technique.compares_scores,
                )

            if why := self._compute_part(part, run, guards, offload):
                return why
        return ""

    def _compute_part(self, part: Inputs, run: _Maker, guards: Guards, offload: Offload | None) -> str:
        """One technique alone, or several together; why those fail, else nothing."""
        if len(self.members) == 1:
            (member,) = self.members
            with named(member.label):
                runs = [run(0, part)]
                found = [_alone(member, runs[0])]
            self._keep(runs, found, f"its own{self.why}", offload)
            return ""
        runs = [run(place, part.detach()) for place in range(len(self.members))]
        try:
            family = type(self.members[0].asker)
            found = family.compute_many([(m.asker, each) for m, each in zip(self.members, runs, strict=True)])
        except Exception as error:
            if lost(error):
                raise
            if (first := guards.broken()) is not None:
                raise first from None
            return f", since together they fail: {first_line(error)}"
        self._keep(runs, found, f"shared by {self.label}", offload)
        return ""

    def _keep(self, runs: Sequence[Run[Technique]], found: Sequence[Maps], told: str, offload: Offload | None) -> None:
        if not isinstance(found, Sequence) or len(found) != len(runs):
            raise PluginError(f"{self.label}: compute_many did not return maps for each of the {len(runs)} techniques")
        kept = []
        for member, run, maps in zip(self.members, runs, found, strict=True):
            with named(member.label):
                kept.append(_kept(run, maps, offload, needs_target=member.technique.needs_target))
            if member.label:
                run.note("pass", told)
        self.runs.append(runs)
        self.maps.append(kept)

    def _together(
        self, model: nn.Module, execution: Execution, guards: Guards, *, anew: bool
    ) -> tuple[int | None, str | None]:
        """How many images a backend is given at once (``None``: all), and why they go through the model one by one.

        Nothing runs for it where each forward has one image anyway.
        """
        start, batch_of = self.start, self.techniques[0].batch_of
        size, images = execution.batch_size, batch_of == "images"
        at_once = size if images else None
        single = len(start) == 1 and (size == 1 or batch_of != "windows")
        if single or (size == 1 and batch_of != "windows"):
            return at_once, None
        if images and size is None:
            asked = [(member.asker, each) for member, each in zip(self.members, self.techniques, strict=True)]
            try:
                needed = type(asked[0][0]).bytes_of_many(asked, model, start)
                at_once = execution.chunk(needed, len(start))
            except (RuntimeError, MemoryError, AttributionError) as error:  # who computes will say what is wrong
                if not isinstance(error, AttributionError) and not out_of_memory(error):
                    raise
                return None, None
            if at_once == 1:
                return at_once, None
        most = len(start) if images else CROWD  # at least so many windows or filters go together
        together = min(most, at_once if images and at_once else size or most)
        apart = mixing(model, start, execution, guards, anew=anew, together=together)
        return (at_once if apart is None or batch_of == "filters" else 1), apart


def own(tensor: Tensor) -> Tensor:
    """Without graph, on memory that nobody else has."""
    return tensor.detach() if alone(tensor) else tensor.detach().clone()


def _alone(member: Member, run: Run[Technique]) -> Maps:
    try:
        return member.asker.compute(run)
    except AttributionError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise no_room(run.name, member.asker.execution.on(run.inputs.device), error) from error
        if in_backward(error) and not lost(error):
            raise ModelError(
                f"no gradient could be taken through the model for inputs of shape {run.inputs}, "
                f"{run.inputs.dtype}: {first_line(error)}"
            ) from error
        raise  # a fault of the attributor's own


def _kept(run: Run[Technique], maps: Maps, offload: Offload | None, *, needs_target: bool) -> Maps:
    """Maps that are the result's own, checked, where they are to lie."""
    who = run.name
    if not isinstance(maps, dict) or not maps or not all(isinstance(map_, Tensor) for map_ in maps.values()):
        raise PluginError(f"{who}: compute returned {type(maps).__name__}, expected a non-empty dict of tensors")
    for name, map_ in maps.items():
        if map_.shape[:1] != (len(run.inputs),):
            raise PluginError(f"{who}: map {name!r} is {tuple(map_.shape)} for {len(run.inputs)} images")
    kept = {name: own(map_) for name, map_ in maps.items()}
    for name in kept:
        run.guards.finite(kept[name], partial(_not_finite, who, name, kept))
    run.guards.measure()
    if needs_target and run.target is None:
        raise PluginError(f"{who}: compute did not call run.scores on the model's output for the clean inputs")
    if offload is None:
        device = run.inputs.device
        return {name: map_ if map_.device == device else map_.to(device) for name, map_ in kept.items()}
    kept.update({name: offload.take(map_) if copies_beside(map_.device) else map_.cpu() for name, map_ in kept.items()})
    return kept


def _not_finite(who: str, name: str, maps: Maps) -> NonFiniteError:
    part = (~torch.isfinite(maps[name])).float().mean().item()
    return NonFiniteError(f"{who}: {part:.1%} of map {name!r} is NaN or infinite; look for overflow in the model")
