"""``ForwardCam``: CAMs whose weights come from forwards alone."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar, TypeVar, final

import torch
from torch import Tensor

from attribution.attributor import Attributor, Run
from attribution.technique import Maps
from attribution.techniques.cam.family import CAM
from attribution.techniques.cam.tokens import Grid
from attribution_hooks.cam.family import weighted
from attribution_hooks.cam.trunk import Trunk
from attribution_hooks.capture import capture
from attribution_hooks.chunks import in_parts, rows_at_once

C = TypeVar("C", bound=CAM)


@dataclass(frozen=True)
class Seen:
    """What a layer gave for the inputs.

    Attributes:
        name: The layer's.
        grid: Where its values lie.
        output: In the layer's own form, of all examples.
        matrix: (N, K), what the scores of the inputs are picked from.
        trunk: What the modules before the layer gave for all examples, where that was asked for and fitted.
    """

    name: str
    grid: Grid
    output: Tensor
    matrix: Tensor
    trunk: Trunk | None = None

    @property
    def axis(self) -> int:
        """That of the examples, in the layer's own form."""
        return 1 if self.grid.form == "sequence_first" else 0

    @property
    def map(self) -> Tensor:
        """(N, D, *places)."""
        return self.grid.map(self.output)

    def own(self, values: Tensor, examples: Tensor) -> Tensor:
        """Values (B, D, *places) in the layer's own form, beside the leading tokens of the examples (B,)."""
        beside = self.output.index_select(self.axis, examples.to(self.output.device))
        return self.grid.unmap(values.to(self.output.device), beside).contiguous()


class ForwardCam(Attributor[C], ABC):
    """A technique of the `CAM` family by forwards without graph: Σ over channels of w[n, t, k] · A[n, k, p].

    A subclass implements `weights`. All layers and the scores of the inputs come from one forward.
    """

    backend: ClassVar[str] = "hooks"

    @abstractmethod
    def weights(self, run: Run[C], seen: Seen) -> Tensor:
        """(N, T, D), in at least float32."""

    def trunks(self, run: Run[C]) -> Mapping[str, Trunk]:
        """Of the layers of which more is to be kept of the first forward; none."""
        return {}

    @final
    def compute(self, run: Run[C]) -> Maps:
        """(N, T, *places) for each layer."""
        with torch.no_grad():
            found = look(run, self.trunks(run))
            for key, note in run.technique.notes({each.name: each.grid for each in found}, run.inputs).items():
                run.note(key, note)
            maps = {}
            for seen in found:
                weights = self.weights(run, seen)
                maps[seen.name] = weighted(weights, seen.map.to(weights.device, weights.dtype))
        return maps


def look(run: Run[C], trunks: Mapping[str, Trunk]) -> list[Seen]:
    """All layers and the clean scores, as many examples at once as fit; trunks, where all examples do.

    Raises:
        LayerError: A layer does not exist, never runs, runs several times, or gives no map.
    """
    names, grids = run.technique.layers, dict[str, Grid]()
    outputs: dict[str, list[Tensor]] = {name: [] for name in names}
    matrices: list[Tensor] = []

    def work(examples: Sequence[int]) -> None:
        shown = run.inputs[examples[0] : examples[-1] + 1]
        with capture(run.model, names) as caught, ExitStack() as stack:
            for trunk in trunks.values() if len(shown) == len(run.inputs) else ():
                stack.enter_context(trunk.noted())
            output = run.forward(shown)
        for name in names:
            grid = run.technique.grid(name, tuple(caught[name].shape), run.model, shown)
            grids.setdefault(name, grid)
        found = {name: caught[name] for name in names}
        matrices.append(run.matrix(output, torch.arange(examples[0], examples[-1] + 1, device=run.inputs.device)))
        for name, each in found.items():
            outputs[name].append(each)

    in_parts(range(len(run.inputs)), rows_at_once(run, len(run.inputs)), work, lambda: None)
    matrix = torch.cat(matrices)
    seen = []
    for name in names:
        axis = 1 if grids[name].form == "sequence_first" else 0
        trunk = trunks.get(name) if len(matrices) == 1 else None
        seen.append(Seen(name, grids[name], torch.cat(outputs[name], axis), matrix, trunk))
    return seen
