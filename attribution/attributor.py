"""``Attributor``: one technique by one backend. The one abstract class that a backend implements."""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar, final

import torch
from torch import Tensor, nn

from attribution.agreement import coarser
from attribution.beginning import Beginning, in_parts
from attribution.errors import (
    AttributionError,
    InputError,
    ModelError,
    NonFiniteError,
    PluginError,
)
from attribution.inputs import checks
from attribution.inputs.inputs import Inputs
from attribution.isolation import process_flags
from attribution.isolation.context import admit, alone, isolate, unwrap
from attribution.isolation.notes import notes as notes_of
from attribution.isolation.rows import CROWD, NO_ROOM, mixing
from attribution.isolation.torch_modes import devices_of, keep_random, set_modes
from attribution.isolation.undo import Undo
from attribution.isolation.unsupported import Weights, accelerator_failed, explained
from attribution.result import Attribution
from attribution.run import Run as Run
from attribution.running.execution import Execution, first_line, in_backward, lost, out_of_memory
from attribution.running.guards import Guards
from attribution.running.memory import no_room, room
from attribution.running.offload import AcceleratorLane, Offload, copies_beside
from attribution.running.precision import tf32
from attribution.running.provenance import provenance
from attribution.scores.classes import ClassScore
from attribution.scores.reading import Asked
from attribution.scores.score import Score, whole
from attribution.technique import Maps, Technique
from attribution.zero_maps import labels, zero_maps

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

    @abstractmethod
    def compute(self, run: Run[TechniqueT]) -> Maps:
        """The raw maps on their native grid; first axis images (or filters), no graph needed.

        What the user left open is filled in on ``run.technique``.
        """

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
        undo = Undo()
        try:
            guards = Guards()
            try:
                return self._answer(undo, guards, inputs, target)
            except Exception as error:
                if lost(error):  # wherever it was waited for
                    raise accelerator_failed(error) from error
                if (first := guards.broken()) is not None:  # what is not finite may have led to the other error
                    raise first from None
                raise
            finally:
                undo.back()
        finally:
            undo.back()

    def _answer(self, undo: Undo, guards: Guards, inputs: Any, target: Asked) -> Attribution:
        inner = unwrap(self.model)
        shown = None
        if self.technique.needs_inputs:
            shown = checks.check(inputs, inner, autocast=self.execution.autocast is not None)
        elif inputs is not None:
            raise InputError(f"{self.technique.name} makes its own inputs; pass inputs=None")
        name = f"{self.technique.name}.{self.backend}"
        beginning = Beginning(self.technique, shown, target, guards)
        devices = devices_of(inner, *([] if shown is None else shown.tensors()))
        device = devices[0] if devices else torch.device("cpu")
        guards.late = self.technique.batch_of != "windows" and device.type != "cpu"
        if shown is not None:
            for tensor in (shown.values[key] for key in shown.explained):
                guards.finite(tensor, partial(checks.not_finite, tensor))
        execution = self.execution.on(device)
        set_modes(undo, execution, device)
        weights = Weights()
        with room(name, execution), explained(inner, weights):
            model, isolation = isolate(undo, self.model, beginning.example)
            weights.note(model)
            if self.technique.takes_gradients:
                process_flags.differentiable(undo, model, device)
            keep_random(undo, devices)
            start, asked = beginning.of(model)
            answered: set[Hashable] = notes_of(model).setdefault("answered", set())
            question = self._question(start, asked)
            if question not in answered:  # what is found out in the first call of a question is kept
                guards.settle()
            technique = self.technique.resolve(model, start)
            anew = isolation.startswith("guarded")
            at_once, apart = self._together(model, technique, start, execution, guards, anew=anew)
            if apart is not None:
                execution = replace(
                    execution, batch_size=1, incremental=execution.incremental if apart == NO_ROOM else False
                )
            runs = [
                Run(
                    model,
                    technique.rows(rows, start),
                    part,
                    execution,
                    asked=score,
                    apart=apart,
                    name=name,
                    guards=guards,
                    compares_scores=technique.compares_scores,
                )
                for rows, part, score in in_parts(start, asked, at_once)
            ]
            offload = Offload(AcceleratorLane()) if execution.offload and any(map(copies_beside, devices)) else None
            done = [self._checked(run, offload) for run in runs]
            if offload is not None:
                offload.finish()
            raw = {name: _whole([maps[name] for maps in done]) for name in done[0]}
            dtype = torch.promote_types(start.dtype, torch.float32) if start.dtype.is_floating_point else None
            shown = start if offload is None else start.cpu()
            with torch.no_grad():
                maps = technique.finish({name: map_.to(dtype or map_.dtype) for name, map_ in raw.items()}, shown)
        notes = {key: value for run in runs for key, value in run.notes.items()}
        if apart is not None:
            notes["rows"] = f"one by one: {apart}"
        score = None if runs[0].score is None else asked.chosen(whole([run.choices for run in runs]))
        columns = _joined([run.target for run in runs])
        target = columns if isinstance(score, ClassScore) else None
        if blank := zero_maps(maps, technique.kind, partial(labels, asked, score, columns), guards):
            notes["zero everywhere"] = blank
        answered.add(question)
        if execution.offload:
            none = "none: the model is on the host" if device.type == "cpu" else f"none: {device.type} has no streams"
            notes["offload"] = none if offload is None else "page-locked, two buffers"
        return Attribution(
            maps=maps,
            technique=technique,
            backend=self.backend,
            target=target,
            score=score,
            scores=_joined([run.clean for run in runs]),
            extras={name: _own(_whole([run.extras[name] for run in runs])) for name in runs[0].extras},
            provenance={**provenance(type(self), self.model, start, isolation), **notes},
            raw=raw,
            computes_in=coarser(start.dtype, execution.autocast, self.computes_in, tf32(start)),
        )

    def image_bytes(self, model: nn.Module, technique: TechniqueT, inputs: Inputs) -> int:
        """Bytes of activations that one image needs at once, for ``memory_budget``; 0: not known, images stay together.

        Args:
            model: Isolated, eval mode.
            technique: With its default layers filled in.
            inputs: Of the call.
        """
        return 0

    def _together(
        self,
        model: nn.Module,
        technique: TechniqueT,
        start: Inputs,
        execution: Execution,
        guards: Guards,
        *,
        anew: bool,
    ) -> tuple[int | None, str | None]:
        """How many images a backend is given at once (``None``: all), and why they go through the model one by one.

        Nothing runs for it where each forward has one image anyway.
        """
        size, images = execution.batch_size, technique.batch_of == "images"
        at_once = size if images else None
        alone = len(start) == 1 and (size == 1 or technique.batch_of != "windows")
        if alone or (size == 1 and technique.batch_of != "windows"):
            return at_once, None
        if images and size is None:
            try:
                at_once = execution.chunk(self.image_bytes(model, technique, start), len(start))
            except (RuntimeError, MemoryError, AttributionError) as error:  # who computes will say what is wrong
                if not isinstance(error, AttributionError) and not out_of_memory(error):
                    raise
                return None, None
            if at_once == 1:
                return at_once, None
        most = len(start) if images else CROWD  # at least so many windows or filters go together
        together = min(most, at_once if images and at_once else size or most)
        apart = mixing(model, start, execution, guards, anew=anew, together=together)
        return (at_once if apart is None or technique.batch_of == "filters" else 1), apart

    def _checked(self, run: Run[TechniqueT], offload: Offload | None) -> Maps:
        who = run.name
        try:
            maps = self.compute(run)
        except AttributionError:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise no_room(who, self.execution.on(run.inputs.device), error) from error
            if in_backward(error) and not lost(error):
                raise ModelError(
                    f"no gradient could be taken through the model for inputs of shape {run.inputs}, "
                    f"{run.inputs.dtype}: {first_line(error)}"
                ) from error
            raise  # a fault of the attributor's own
        if not isinstance(maps, dict) or not maps or not all(isinstance(map_, Tensor) for map_ in maps.values()):
            raise PluginError(f"{who}: compute returned {type(maps).__name__}, expected a non-empty dict of tensors")
        for name, map_ in maps.items():
            if map_.shape[:1] != (len(run.inputs),):
                raise PluginError(f"{who}: map {name!r} is {tuple(map_.shape)} for {len(run.inputs)} images")
        kept = {name: _own(map_) for name, map_ in maps.items()}
        for name in kept:
            run.guards.finite(kept[name], partial(_not_finite, who, name, kept))
        run.guards.measure()
        if self.technique.needs_target and run.target is None:
            raise PluginError(f"{who}: compute did not call run.scores on the model's output for the clean inputs")
        if offload is None:
            return {name: map_.to(run.inputs.device) for name, map_ in kept.items()}
        kept.update(
            {name: offload.take(map_) if copies_beside(map_.device) else map_.cpu() for name, map_ in kept.items()}
        )
        return kept

    def _question(self, start: Inputs, asked: Score) -> Hashable:
        """What is asked, of images of this kind; equal for equal questions."""
        question = (type(self), self.technique, self.execution, type(asked), len(start), start.kind)
        try:
            hash(question)
        except TypeError:  # a plugin's technique may hold what has no hash
            return object()
        return question


def _own(tensor: Tensor) -> Tensor:
    """Without graph, on memory that nobody else has."""
    return tensor.detach() if alone(tensor) else tensor.detach().clone()


def _not_finite(who: str, name: str, maps: Maps) -> NonFiniteError:
    part = (~torch.isfinite(maps[name])).float().mean().item()
    return NonFiniteError(f"{who}: {part:.1%} of map {name!r} is NaN or infinite; look for overflow in the model")


def _whole(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return _whole(present) if present else None
