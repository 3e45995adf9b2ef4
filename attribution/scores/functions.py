"""``FunctionScore``: any function of a model's output."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from attribution.errors import AttributionError, ModelError, TargetError
from attribution.scores.outputs import described
from attribution.scores.score import Output, Score, per_row


@dataclass(frozen=True, eq=False)
class FunctionScore(Score):
    """f(output) or f(output, examples): (B,) or (B, T), differentiable.

    A function of one argument must treat each example by its own row. It is tried once on the clean output with its
    rows in reverse order, and refused where its values do not turn with them: data of each example (masks,
    references) are looked up by ``examples`` (B,), the place of each row in the user's batch.

    Args:
        function: Of whatever the model returns, and of ``examples`` where it takes two positional arguments.
        name: In figures, files and reports; ``None``: the function's own.
        first: Not for the user: the place of a part's first example in the batch.

    Raises:
        TargetError: It is no function, or takes another number of arguments. When run: see above.
        ModelError: When run: it fails on the output, or does not return one row per example.
    """

    function: Callable[..., Tensor]
    name: str | None = None
    first: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TargetError(f"FunctionScore.function is {self.function!r}; give a function of the model's output")
        name = self.name or getattr(self.function, "__name__", type(self.function).__name__)
        object.__setattr__(self, "name", str(name))
        _takes_examples(self.function)

    def rows(self, part: slice) -> Self:
        """The function is told the places in the whole batch."""
        return self.having(first=self.first + (part.start or 0))

    def choose(self, output: Output, examples: Tensor) -> Mapping[str, Tensor]:
        """Nothing; a function of one argument is tried with the rows in reverse order.

        Raises:
            TargetError: Its values do not turn with the rows.
        """
        if len(examples) > 1 and not _takes_examples(self.function):
            with torch.no_grad():
                plain, turned = (
                    self.values(given, examples).nan_to_num(0.0) for given in (output, _turned(output, len(examples)))
                )
                size = plain.abs().amax().clamp(min=torch.finfo(plain.dtype).tiny)
                if not bool((plain - turned.flip(0)).abs().amax() <= 1e-3 * size):
                    raise TargetError(
                        f"{self} gives a row of the output another value at another place of the batch: it uses data "
                        "of each example, or mixes them. Let it take (output, examples) and look its data up by "
                        "examples, the place of each row in the batch"
                    )
        return {}

    def values(self, output: Output, examples: Tensor) -> Tensor:
        """(B, T)."""
        arguments = (output, examples + self.first) if _takes_examples(self.function) else (output,)
        try:
            found = self.function(*arguments)
        except (AttributionError, MemoryError):
            raise
        except Exception as error:
            if isinstance(error, RuntimeError) and "out of memory" in str(error):
                raise
            raise ModelError(
                f"{self} fails on what the model returns, {described(output)}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(found, Tensor) or not found.is_floating_point() or found.ndim not in (1, 2):
            raise ModelError(f"{self} gives {described(found)}; expected floats (B,) or (B, T), one row per example")
        per_row(found, len(examples), f"what {self} gives")
        return found[:, None] if found.ndim == 1 else found

    def __str__(self) -> str:
        return str(self.name)


def _takes_examples(function: Callable[..., Any]) -> bool:
    """Whether a function takes two positional arguments.

    Raises:
        TargetError: It takes neither one nor two.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False  # of C
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in positional if p.default is p.empty]
    if len(needed) > 2 or (not positional and not any(p.kind == p.VAR_POSITIONAL for p in parameters)):
        raise TargetError(
            f"a score takes (output) or (output, examples); {getattr(function, '__name__', function)!r} takes "
            f"{', '.join(p.name for p in parameters) or 'nothing'}"
        )
    return len(needed) == 2 or (len(positional) > 1 and positional[1].name == "examples")


def _turned(output: Any, rows: int) -> Any:
    """An output with the rows of its tensors in reverse order, and of lists with one entry per example."""
    if isinstance(output, Tensor):
        return output.flip(0) if output.ndim and len(output) == rows else output
    if isinstance(output, Mapping):
        turned = {key: _turned(value, rows) for key, value in output.items()}
        try:
            return type(output)(turned)  # type: ignore[call-arg]
        except Exception:
            return turned
    if isinstance(output, list) and len(output) == rows and all(isinstance(item, Mapping) for item in output):
        return output[::-1]
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(_turned(item, rows) for item in output))
    if isinstance(output, list | tuple):
        return type(output)(_turned(item, rows) for item in output)
    if hasattr(output, "__dict__"):
        import copy

        other = copy.copy(output)
        for name, value in vars(output).items():
            object.__setattr__(other, name, _turned(value, rows))
        return other
    return output
