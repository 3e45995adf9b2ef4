"""Grad-CAM of few images and targets as one CUDA graph: what a call launches is captured once, and replayed."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from attribution.attributor import Run
from attribution.isolation.notes import notes
from attribution.running import precision
from attribution.running.execution import first_line
from attribution.running.upload import upload
from attribution.scores.classes import ClassScore
from attribution.technique import Maps
from attribution_hooks.cam.backward import FEW_TARGETS
from attribution_hooks.cam.closed_form import hooked

MOST_IMAGES = 8
"""More of them keep a device busy for longer than they take to launch."""

ROUNDING = 64
"""How many units in the last place of the largest value a replay may be off."""

WARM_UPS = 2

Made = TypeVar("Made")


@dataclass
class _Still(Run[Any]):
    """A run whose inputs and classes lie where a graph reads them, and are other ones at each replay."""

    place: Tensor | None = None
    logits_given: list[Tensor] = field(default_factory=list)

    def matrix(self, output: Any, examples: Tensor | None = None) -> Tensor:
        """Nothing is checked, and nothing looked at: the run itself does that."""
        logits = self.logits(output)
        self.logits_given = [logits.detach()]
        self.score = self.asked
        self.target = logits.detach().argmax(dim=1, keepdim=True) if self.place is None else self.place
        return logits


class Graph:
    """One forward and its gradients, captured. It has no checks of its own; see `replayed`.

    Args:
        run: Of the call that it is made in.
        compute: What is captured; it must not wait for the device.
    """

    def __init__(self, run: Run[Any], compute: Callable[[Run[Any]], Maps]) -> None:
        self._pointers = pointers(run.model)
        self._inputs, self._place = torch.zeros_like(run.inputs.tensor), None
        if (target := _named(run)) is not None:
            self._place = torch.zeros_like(target, device=run.inputs.device)
        given = {each.name: getattr(run, each.name) for each in fields(Run)} | {"extras": {}, "notes": {}}
        still = _Still(**given | {"inputs": run.inputs.replaced(self._inputs)}, place=self._place)
        with torch.cuda.device(run.inputs.device) if self._inputs.is_cuda else nullcontext():
            self._replay, (self._maps, self._logits) = captured(lambda: (compute(still), still.logits_given[0]))
        self._notes = dict[str, Any](still.notes)

    def fits(self, model: nn.Module) -> bool:
        """Whether all that it reads lies where it lay; what is written there is read anew each time."""
        return self._pointers == pointers(model)

    def run(self, run: Run[Any]) -> tuple[Maps, Tensor]:
        """Maps and logits (N, K) for the inputs and classes of a call."""
        self._inputs.copy_(run.inputs.tensor)
        if self._place is not None and (target := _named(run)) is not None:
            self._place.copy_(upload(target, self._place.device))
        self._replay()
        run.notes.update(self._notes)
        return {name: map_.clone() for name, map_ in self._maps.items()}, self._logits.clone()

    @property
    def classes(self) -> int:
        """K."""
        return self._logits.shape[1]


def replayed(run: Run[Any], question: object, compute: Callable[[Run[Any]], Maps]) -> Maps:
    """The maps of a call, by a graph from the third call of a question on.

    The first call is a plain one. The second is too, and after it a graph is made and held against its answer, on
    its images; where it fails or says something else, there is none. A parameter or buffer that has moved is a
    new graph. Hooks of the user's must run, so that with them there is none either.

    Args:
        run: Of the call.
        question: What is asked; hashable.
        compute: The plain way.
    """
    if not run.inputs.plain:
        return compute(run)
    score, asked, x = run.asked, _named(run), run.inputs.tensor
    few = isinstance(score, ClassScore) and score == ClassScore(score.target, of="logit")
    few = few and (asked.shape[1] <= FEW_TARGETS if asked is not None else getattr(score, "target", "all") is None)
    if not (has_graphs(x.device) and few and len(x) <= MOST_IMAGES) or hooked(run.model.modules()):
        return compute(run)
    targets = None if asked is None else asked.shape[1]
    key = (question, x.shape, x.stride(), x.dtype, x.device, targets, run.execution, precision.told(x.device))
    known: dict[object, Graph | str | None] = notes(run.model).setdefault("graphs", {})
    if key not in known:
        known[key] = None
        return compute(run)
    graph = known[key]
    if isinstance(graph, Graph) and graph.fits(run.model):
        if asked is not None and int(asked.max()) >= graph.classes:
            return compute(run)  # which refuses it
        maps, logits = graph.run(run)
        run.matrix(logits)
        run.note("graph", "replayed")
        return maps
    maps = compute(run)
    if not isinstance(graph, str) and run.clean is not None and run.target is not None:
        try:
            made = Graph(run, compute)
            again, logits = made.run(run)
            same = _same(maps | {"": run.clean}, again | {"": logits.gather(1, run.target)})
            known[key] = made if same else "a replay gave another answer"
        except Exception as error:  # the answer is there without it
            known[key] = first_line(error)
    if isinstance(reason := known[key], str):
        run.note("graph", f"none: {reason}")
    return maps


def _named(run: Run[Any]) -> Tensor | None:
    """The classes (N, T) that the user named, on the host."""
    target = run.asked.target if isinstance(run.asked, ClassScore) else None
    return target if isinstance(target, Tensor) else None


def has_graphs(device: torch.device) -> bool:
    """Whether work on a device can be captured."""
    return device.type == "cuda" and torch.cuda.is_available()


def captured(work: Callable[[], Made]) -> tuple[Callable[[], None], Made]:
    """What does the work again in the same memory, and what the work gave; it holds values after a replay only."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):  # kernels are chosen and work spaces made before
        for _ in range(WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        made = work()
    return graph.replay, made


def pointers(model: nn.Module) -> list[int]:
    """Where parameters and buffers lie."""
    return [tensor.data_ptr() for tensor in chain(model.parameters(), model.buffers())]


def _same(maps: Maps, others: Maps) -> bool:
    pairs = [(maps[name], others[name]) for name in maps]
    offs = [(a - b).abs().max() <= ROUNDING * torch.finfo(a.dtype).eps * a.abs().max() for a, b in pairs]
    return bool(torch.stack(offs).all())
