"""Many forwards of changed examples: by a lowered network where it is found to say what the model says."""

import random
import sys
from collections.abc import Callable
from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from attribution.inputs.inputs import Inputs
from attribution.isolation.notes import notes
from attribution.isolation.torch_modes import devices_of, note_random
from attribution.isolation.undo import Undo
from attribution.lowered import products
from attribution.lowered.convolutions import can_pack
from attribution.lowered.network import Network, lower
from attribution.lowered.rounding import allowed
from attribution.lowered.tracing import Untraceable, hooked
from attribution.run import Run
from attribution.running.execution import first_line, lost

T = TypeVar("T")

Forward = Callable[[Tensor | Inputs, Tensor], Tensor]
"""The scores (B, T) of changed inputs, and of which examples (B,) they are."""

WORTH = 48
"""Rows of forwards from which on a network pays for its making, and for the rows that prove it."""

PLACES = 48 * 128 * 128
"""The same in rows times their places: a forward of small images is soon done, and the making costs what it costs."""

NOTE = "forwards"


def held(run: Run[Any], rows: int) -> int:
    """Bytes of weights beside the model's own for so many rows of forwards."""
    return 0 if _own(run, rows) is not None else _bytes(run)


def _bytes(run: Run[Any]) -> int:
    modules = [*run.model.modules()]
    packed = sum(module.weight.nbytes for module in modules if isinstance(module, nn.Conv2d))
    return packed + products.held(modules, outputs=products.WIDEST)


def forwarding(run: Run[Any], clean: Tensor, rows: int, work: Callable[[Forward], T]) -> T:
    """What ``work`` makes of forwards: by a lowered network if that is believed, else by the model itself.

    The network is made anew in every call, since weights and numbers outside of the model may have changed. It is
    believed as an engine of occlusion is, within `allowed` of the model's own answers to a few of the changed examples:
    the first and the last of the first forward before any other, in the end the one that changes a score most, and one
    of the smallest forward. Where one differs, ``work`` is done once more. ``provenance["forwards"]`` says which ran,
    and why not the network.

    Args:
        run: Its score is settled.
        clean: (N, K), the matrix of the inputs as they are.
        rows: How many there will be.
        work: Called once, or twice; all that it returns comes of the forwards that it is given.
    """
    reason, known = _own(run, rows), notes(run.model).setdefault("lowered", dict[object, str]())
    reason = reason or hooked(run.model) or known.get(question := run.inputs.kind)
    if reason is None:
        restart = note_random(Undo(), devices_of(run.model, *run.inputs.tensors()))
        try:
            proved = _Proved(run, clean, lower(run.model))
            found = work(proved)
            proved.settle()
        except Untraceable as why:
            if lost(why):
                raise
            reason = known[question] = str(why)
        except Exception as error:  # the model's own code, on another way; the model itself may do
            if lost(error):
                raise
            reason = f"the lowered network failed: {first_line(error)}"
        else:
            run.note(NOTE, proved.told)
            return found
        restart()
    run.note(NOTE, f"the model's own: {reason}")
    return work(lambda shown, examples: run.scores(run.forward(shown, examples), examples))


def _own(run: Run[Any], rows: int) -> str | None:
    """Why no network is tried."""
    x = run.inputs.first
    if not run.execution.lowered:
        return "Execution.lowered is False"
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return f"{x.dtype} on {x.device.type}; networks are lowered in float32 on a CPU"
    if run.execution.autocast is not None:
        return "autocast chooses a precision op by op"
    if run.apart is not None:
        return run.apart
    if not run.inputs.plain:
        return "the model takes more than one tensor"
    if run.asked.of_layer is not None:
        return "the score is one of a layer, where the forward ends"
    if not can_pack():
        return "this torch has no oneDNN, or it is turned off"
    if rows < WORTH:
        return f"{rows} rows are too few"
    if rows * (places := prod(x.shape[2:])) < PLACES:
        return f"{rows} rows of {places} places are too few"
    if (size := _bytes(run)) > run.execution.budget // 2:
        return f"its weights take {size} bytes of Execution.memory_budget {run.execution.budget}"
    return None


_Kept = tuple[Tensor, Tensor, Tensor]
"""One changed example (1, …), which it is (1,), and the network's matrix of it (1, K)."""


class _Proved:
    """Forwards by a network, some of whose answers are held against the model's.

    Attributes:
        told: For provenance.
    """

    def __init__(self, run: Run[Any], clean: Tensor, network: Network) -> None:
        self._run, self._clean, self._network = run, clean, network
        self._strongest: tuple[float, _Kept] | None = None
        self._smallest: tuple[int, _Kept] | None = None
        self.told = f"lowered: {network.packed} convolutions packed, {network.folded} batch norms folded"

    def __call__(self, shown: Tensor | Inputs, examples: Tensor) -> Tensor:
        """The scores (B, T).

        Raises:
            Untraceable: The first answers are not the model's.
        """
        assert isinstance(shown, Tensor)  # there is one input
        matrix = self._run.matrix(self._network(shown), examples)
        if self._strongest is None:
            ends = torch.arange(0, len(shown), max(1, len(shown) - 1), device=shown.device)
            if all(self._draws(shown[ends], examples[ends], matrix[ends]) for _ in range(3)):
                raise Untraceable("the model draws random numbers")
        score, target = self._run.settled
        scores = score.score_of(matrix).gather(1, target[examples])
        self._keep(shown, examples, matrix, scores)
        return scores

    def settle(self) -> None:
        """Hold the answers that matter most against the model's.

        Raises:
            Untraceable: They differ.
        """
        kept = [each[1] for each in (self._strongest, self._smallest) if each is not None]
        if kept:
            shown, examples, matrix = (torch.cat(parts) for parts in zip(*kept, strict=True))
            self._hold(shown, examples, matrix)

    def _keep(self, shown: Tensor, examples: Tensor, matrix: Tensor, scores: Tensor) -> None:
        """The row that changes a score most so far, and the last one of the smallest forward so far."""
        assert self._run.clean is not None  # beside the score that is settled
        change = (self._run.clean[examples] - scores).abs().amax(1).nan_to_num(torch.inf)
        largest, row = change.max(0)
        if self._strongest is None or float(largest) > self._strongest[0]:
            self._strongest = float(largest), _row(int(row), shown, examples, matrix)
        if self._smallest is None or len(shown) < self._smallest[0]:
            self._smallest = len(shown), _row(len(shown) - 1, shown, examples, matrix)

    def _draws(self, shown: Tensor, examples: Tensor, matrix: Tensor) -> bool:
        """Whether numbers were drawn meanwhile; by another thread it may be once."""
        before = _random()
        self._hold(shown, examples, matrix)
        return _random() != before

    def _hold(self, shown: Tensor, examples: Tensor, matrix: Tensor) -> None:
        run = self._run
        own = run.matrix(run.forward(shown, examples), examples)
        if matrix.shape != own.shape or matrix.dtype != own.dtype:
            raise Untraceable("the lowered network returns another output than the model")
        difference = torch.where(matrix == own, 0, matrix - own).abs()
        near = difference <= allowed(run, self._clean[examples], own, examples)  # NaN never is
        score, target = run.settled
        if not bool((near if score.mixes else near.gather(1, target[examples])).all()):
            raise Untraceable("the lowered network answers otherwise than the model")


def _row(row: int, *of: Tensor) -> Any:
    return tuple(each[row : row + 1].clone() for each in of)


def _random() -> tuple[object, ...]:
    """Where the generators stand that a model may draw from without telling."""
    numpy: Any = sys.modules.get("numpy.random")
    drawn = () if numpy is None else numpy.get_state()[1:]
    return torch.get_rng_state().tolist(), random.getstate(), [*map(repr, drawn)]
