"""``Attributor``: one technique by one backend. The one abstract class that a backend implements."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar, Generic, Literal, TypeVar, final

import torch
from torch import Tensor, nn

from attribution import inputs as inputs_
from attribution import targets
from attribution.agreement import coarser, tf32
from attribution.beginning import Beginning
from attribution.errors import (
    AttributionError,
    InputError,
    ModelError,
    NonFiniteError,
    PluginError,
    ResourceError,
)
from attribution.execution import Execution, out_of_memory, running
from attribution.isolation import admit, alone, isolate, unwrap
from attribution.kinds import Weights, explained
from attribution.modes import keep_random, set_modes
from attribution.offload import CudaLane, Offload
from attribution.provenance import provenance
from attribution.result import Attribution
from attribution.targets import Target
from attribution.technique import Maps, Technique
from attribution.undo import Undo

TechniqueT = TypeVar("TechniqueT", bound=Technique)


@dataclass
class Run:
    """One call: all that a backend gets, and all that it may tell.

    Attributes:
        model: Isolated: eval mode, shares the user's parameters, and hooks on it are nobody else's.
        inputs: A private copy, (N, C, H, W); the start images for a technique that makes its own.
        execution: How to run.
        name: Technique and backend, for the progress bar.
        extras: Tensors to hand on beside the maps; first axis images or filters.
    """

    model: nn.Module
    inputs: Tensor
    execution: Execution
    extras: dict[str, Tensor] = field(default_factory=dict)
    asked: Tensor | Literal["all"] | None = None
    score_of: Callable[[Tensor], Tensor] = lambda logits: logits
    target: Tensor | None = None
    scores: Tensor | None = None
    notes: dict[str, str | int | float] = field(default_factory=dict)
    name: str = "work"

    def call(self, x: Tensor) -> Any:
        """Whatever the model returns for a batch (B, C, H, W), which it gets as a copy and cannot write into.

        Raises:
            ModelError: The model fails on these inputs.
        """
        with running(x):
            return self.model(x.clone())

    def forward(self, x: Tensor) -> Tensor:
        """The model's logits (B, K) for a batch (B, C, H, W).

        Raises:
            ModelError: The model fails on these inputs, or does not return a matrix of logits.
        """
        return self.logits(self.call(x))

    def logits(self, output: Any) -> Tensor:
        """The logits (B, K) in what the model returned.

        Raises:
            ModelError: There are none.
        """
        return _logits(output, self.execution.output)

    def select(self, logits: Tensor) -> Tensor:
        """The classes to explain: (N, K) logits of ``inputs`` → (N, T) int64. Records target and scores.

        ``extras["largest_score"]`` (N,) is the largest |score| of any class, the size that rounding goes by.

        Raises:
            TargetError: A class is out of range.
            NonFiniteError: The logits hold NaN or infinity.
        """
        logits = logits.detach()
        if not inputs_.finite(logits):
            raise NonFiniteError(
                "the model's logits hold NaN or infinity on the clean inputs; nothing can be explained"
            )
        self.target = targets.resolve(self.asked, logits)
        scores = self.score_of(logits)
        self.scores = scores.gather(1, self.target)
        self.extras["largest_score"] = scores.abs().amax(dim=1)
        return self.target

    def note(self, key: str, value: str | int | float) -> None:
        """Put a fact into the result's provenance: engine, counts, what could not be honoured."""
        self.notes[key] = value

    @contextmanager
    def progress(self, total: int, unit: str) -> Iterator[Callable[[], None]]:
        """A function to call after each of ``total`` units of work; shows a bar if ``execution.progress``.

        The bar says whose work it counts and in what, and is full where the work was done; an engine that gives up on
        the way closes its own, and the next one begins another.
        """
        if not self.execution.progress:
            yield lambda: None
            return
        from tqdm.auto import tqdm

        with tqdm(total=total, desc=f"{self.name}, {unit}s", unit=unit, leave=False) as bar:
            yield lambda: bar.update() and None


class Attributor(ABC, Generic[TechniqueT]):
    """One technique by one backend.

    A subclass names its technique and its backend and implements `compute`; it adds no parameters and no
    defaults. The constructor stores; it neither runs nor changes the model.

    Args:
        model: Any eager module that maps (N, C, H, W) to logits; compiled and data-parallel wrappers are unwrapped.
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
            raise ModelError(f"model is a {type(model).__name__}; give a torch.nn.Module")
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
    def compute(self, run: Run) -> Maps:
        """The raw maps on their native grid; first axis images (or filters), no graph needed.

        Layers that the user left open are filled in on ``self.technique`` by now.
        """

    @final
    def attribute(self, inputs: Tensor | None = None, target: Target = None) -> Attribution:
        """Check, isolate, compute, finish. The model, the inputs and torch's modes are as found on every exit.

        Args:
            inputs: Float (N, C, H, W) on the model's device; ``None`` for a technique that makes its own.
            target: One class for all images, one per image, (N, T), ``"all"``, or ``None`` for the prediction.

        Raises:
            AttributionError: Bad input, before any work; see the technique for what it refuses.
        """
        undo = Undo()
        try:
            try:
                return self._answer(undo, inputs, target)
            finally:
                undo.back()
        finally:
            undo.back()

    def _answer(self, undo: Undo, inputs: Tensor | None, target: Target) -> Attribution:
        device = next((t.device for t in chain(self.model.parameters(), self.model.buffers())), torch.device("cpu"))
        execution, inner = self.execution, unwrap(self.model)
        shown = None
        if self.technique.needs_inputs:
            shown = inputs_.check(inputs, inner, autocast=execution.autocast is not None)
        elif inputs is not None:
            raise InputError(f"{self.technique.name} makes its own inputs; pass inputs=None")
        name = f"{self.technique.name}.{self.backend}"
        beginning = Beginning(self.technique, shown, target)
        set_modes(undo, execution, device)
        weights = Weights()
        with explained(inner, weights):
            model, isolation = isolate(undo, self.model, beginning.example)
            weights.note(model)
            keep_random(undo, device)
            start, asked = beginning.of(model)
            worker = copy.copy(self)
            worker.technique = self.technique.resolve(model, start)
            runs = [
                Run(model, part, execution, asked=rows, score_of=worker.technique.scores, name=name)
                for part, rows in _parts(
                    start, asked, execution.batch_size if worker.technique.batch_of == "images" else None
                )
            ]
            offload = Offload(CudaLane(device)) if execution.offload and device.type == "cuda" else None
            done = [worker._checked(run, offload) for run in runs]
            if offload is not None:
                offload.finish()
            raw = {name: _whole([maps[name] for maps in done]) for name in done[0]}
            dtype = torch.promote_types(start.dtype, torch.float32)
            shown = start if offload is None else start.cpu()
            with torch.no_grad():
                maps = worker.technique.finish({name: map_.to(dtype) for name, map_ in raw.items()}, shown)
        notes = {key: value for run in runs for key, value in run.notes.items()}
        if execution.offload:
            notes["offload"] = "none: the model is on the host" if offload is None else "page-locked, two buffers"
        return Attribution(
            maps=maps,
            technique=worker.technique,
            backend=self.backend,
            target=_joined([run.target for run in runs]),
            scores=_joined([run.scores for run in runs]),
            extras={name: torch.cat([run.extras[name] for run in runs]).detach() for name in runs[0].extras},
            provenance={**provenance(type(self), self.model, start, isolation), **notes},
            raw=raw,
            computes_in=coarser(start.dtype, execution.autocast, self.computes_in, tf32(start)),
        )

    def _checked(self, run: Run, offload: Offload | None) -> Maps:
        who = run.name
        try:
            maps = self.compute(run)
        except RuntimeError as error:
            if isinstance(error, AttributionError) or not out_of_memory(error):
                raise
            raise ResourceError(
                f"{who} ran out of memory ({str(error).splitlines()[0]}); give Execution a smaller batch_size or "
                f"memory_budget (now {self.execution.batch_size} and {self.execution.memory_budget} bytes)"
            ) from error
        if not isinstance(maps, dict) or not maps or not all(isinstance(map_, Tensor) for map_ in maps.values()):
            raise PluginError(f"{who}: compute returned {type(maps).__name__}, expected a non-empty dict of tensors")
        for name, map_ in maps.items():
            if map_.shape[:1] != run.inputs.shape[:1]:
                raise PluginError(f"{who}: map {name!r} is {tuple(map_.shape)} for {len(run.inputs)} images")
            if not inputs_.finite(map_):
                part = (~torch.isfinite(map_)).float().mean().item()
                raise NonFiniteError(
                    f"{who}: {part:.1%} of map {name!r} is NaN or infinite; look for overflow in the model"
                )
        if self.technique.needs_target and run.target is None:
            raise PluginError(f"{who}: compute did not call run.select on its logits")
        own = {name: map_.detach() if alone(map_) else map_.detach().clone() for name, map_ in maps.items()}
        return own if offload is None else {name: offload.take(map_) for name, map_ in own.items()}


def _logits(output: Any, item: str | int | None) -> Tensor:
    if item is not None:
        try:
            output = output[item]
        except (KeyError, IndexError, TypeError) as error:
            raise ModelError(f"Execution.output is {item!r}, but the model returns {_described(output)}") from error
    if isinstance(output, Tensor) and output.ndim == 2 and output.is_floating_point():
        return output
    hint = "" if isinstance(output, Tensor) else "; name the item that holds them: Execution(output=…)"
    raise ModelError(f"the model returns {_described(output)}; expected logits (N, K){hint}")


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor {tuple(output.shape)} of {output.dtype}"
    if isinstance(output, dict):
        return f"a {type(output).__name__} with keys {[*output]}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"


def _parts(
    inputs: Tensor, asked: Tensor | Literal["all"] | None, size: int | None
) -> Iterator[tuple[Tensor, Tensor | Literal["all"] | None]]:
    size = size or len(inputs)
    for first in range(0, len(inputs), size):
        rows = asked[first : first + size] if isinstance(asked, Tensor) else asked
        yield inputs[first : first + size], rows


def _whole(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return _whole(present) if present else None
