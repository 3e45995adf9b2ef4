"""``Run``: one call, as a backend gets it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attribution.errors import ModelError, NonFiniteError
from attribution.running.execution import Execution, running
from attribution.running.guards import Guards
from attribution.scores import targets

MASK = 64
"""How many times larger than the median class and the classes asked for a score may be that says how those round."""


@dataclass
class Run:
    """One call: all that a backend gets, and all that it may tell.

    Attributes:
        model: Isolated: eval mode, shares the user's parameters, and hooks on it are nobody else's.
        inputs: A private copy, (N, C, H, W); the start images for a technique that makes its own.
        execution: How to run; one image per forward where the model mixes the images of a batch.
        extras: Tensors to hand on beside the maps; first axis images or filters.
        name: Technique and backend, for the progress bar.
        apart: Why images, windows and filters go through the model one by one; ``None`` where they need not.
        guards: What must be finite, and when that is looked at.
        compares_scores: Of the technique.
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
    apart: str | None = None
    name: str = "work"
    guards: Guards = field(default_factory=Guards)
    compares_scores: bool = True

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
            ModelError: The model fails on these inputs, or does not return a matrix of logits, one row per image.
        """
        logits = self.logits(self.call(x))
        if len(logits) != len(x):
            raise ModelError(
                f"the model returns {len(logits)} rows of logits for {len(x)} images; expected one row per image"
            )
        return logits

    def logits(self, output: Any) -> Tensor:
        """The logits (B, K) in what the model returned, on the inputs' device, wherever the model left them.

        Raises:
            ModelError: There are none.
        """
        return _logits(output, self.execution.output).to(self.inputs.device)

    def select(self, logits: Tensor) -> Tensor:
        """The classes to explain: (N, K) logits of ``inputs`` → (N, T) int64. Records target and scores.

        Where the technique compares scores, ``extras["largest_score"]`` (N,) is the largest finite |score| of any
        class, the size that rounding goes by; at most `MASK` times the median class's and the asked ones', since a
        masked class says nothing of the others.

        Raises:
            TargetError: A class is out of range.
            NonFiniteError: The score of a class that is asked about is NaN or infinite. Other classes may be masked.
                On a device other than the host it may come at the end of the call.
        """
        logits = logits.detach()
        self.target = targets.resolve(self.asked, logits)
        scores = self.score_of(logits)
        self.scores = scores.gather(1, self.target)
        self.guards.finite(self.scores, _lost)
        if self.compares_scores:
            sizes = scores.abs().nan_to_num(0.0, 0.0)  # a masked class has no size
            usual = torch.maximum(medians(sizes), self.scores.abs().amax(dim=1))
            self.extras["largest_score"] = torch.minimum(sizes.amax(dim=1), MASK * usual)
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


def _lost() -> NonFiniteError:
    return NonFiniteError(
        "the model's scores of the classes asked about hold NaN or infinity on the clean inputs; "
        "nothing can be explained"
    )


def medians(rows: Tensor) -> Tensor:
    """The median of each row, the lower of two: (N, K) → (N,). NaN is left out.

    Torch's own has no deterministic kernel on CUDA, and refuses where one is asked for.
    """
    if not torch.are_deterministic_algorithms_enabled():
        return rows.nanmedian(dim=1).values
    count = (~rows.isnan()).sum(dim=1, keepdim=True)
    return rows.sort(dim=1).values.gather(1, ((count - 1) // 2).clamp(min=0))[:, 0]


def _logits(output: Any, item: str | int | None) -> Tensor:
    if item is not None:
        try:
            output = output[item]
        except Exception as error:  # the output may be an object with code of its own
            raise ModelError(f"Execution.output is {item!r}, but the model returns {_described(output)}") from error
    readable = (
        isinstance(output, Tensor) and output.layout == torch.strided and not (output.is_nested or output.is_meta)
    )
    if readable and output.ndim == 2 and output.is_floating_point():
        return output  # type: ignore[no-any-return]
    hint = "" if isinstance(output, Tensor) else "; name the item that holds them: Execution(output=…)"
    raise ModelError(f"the model returns {_described(output)}; expected logits (N, K){hint}")


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        if output.is_nested or output.is_meta or output.layout != torch.strided:
            kind = "nested" if output.is_nested else "meta" if output.is_meta else str(output.layout)
            return f"a {kind} tensor"
        return f"a tensor {tuple(output.shape)} of {output.dtype}"
    if isinstance(output, dict):
        return f"a {type(output).__name__} with keys {[*output]}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"
