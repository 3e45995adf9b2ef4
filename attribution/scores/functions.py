"""``FunctionScore``: any function of a model's output."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Self

from torch import Tensor

from attribution.errors import AttributionError, ModelError, TargetError
from attribution.running.execution import out_of_memory
from attribution.scores.outputs import described
from attribution.scores.own_rows import mixed
from attribution.scores.score import Finding, Output, Score

HINT = "Let it take (output, examples) and look its data up by examples, the place of each row in the batch"


@dataclass(frozen=True, eq=False)
class FunctionScore(Score):
    """f(output) or f(output, examples): (B,) or (B, T), differentiable.

    A function of one argument must treat each example by its own row. It is tried on the clean output with its rows
    moved on by one, and with the first and the last row in every place, and refused where its values do not go with the
    rows: data of each example (masks, references) are looked up by ``examples`` (B,), the place of each row in the
    user's batch, and what is taken over the batch (its mean, its largest value) means nothing where an example stands
    alone. Of a single example the output, where it is a tensor, is tried behind a row of other numbers. Other outputs
    of which the rows cannot be told are not tried. On an accelerator the verdict is read together with other flags, so
    that the error may come at the end of the call.

    Args:
        function: Of whatever the model returns, and of ``examples`` where it takes two positional arguments, or its
            second is called so.
        name: In figures, files and reports; ``None``: the function's own.
        layer: A layer whose output the function takes in place of the model's; the forward ends there.

    Raises:
        TargetError: It is no function, or takes another number of arguments, or ``layer`` is no name. When run: see
            above.
        LayerError: The model has no such layer. When run: it never runs, or runs several times.
        ModelError: When run: it fails on the output, or does not return one row of floats per example.
    """

    function: Callable[..., Tensor]
    name: str | None = None
    _: KW_ONLY
    layer: str | None = None
    _first: int = field(default=0, init=False, repr=False, compare=False)
    """The place of a part's first example in the batch."""

    def __post_init__(self) -> None:
        if not callable(self.function) or isinstance(self.function, type):
            raise TargetError(f"FunctionScore.function is {self.function!r}; give a function of the model's output")
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            raise TargetError(f"FunctionScore.name is {self.name!r}; give a text, or leave it out")
        if self.layer is not None and (not isinstance(self.layer, str) or not self.layer):
            raise TargetError(f"FunctionScore.layer is {self.layer!r}; give a name of model.named_modules()")
        object.__setattr__(self, "name", self.name or called(self.function))
        _takes_examples(self.function)

    @property
    def of_layer(self) -> str | None:
        """The layer whose output the function takes."""
        return self.layer

    def rows(self, part: slice) -> Self:
        """The function is told the places in the whole batch."""
        return self.having(_first=self._first + (part.start or 0))

    def findings(self, output: Output, examples: Tensor) -> Sequence[Finding]:
        """The values of a function of one argument do not move with the rows."""
        if _takes_examples(self.function):
            return ()
        off = mixed(lambda each, rows: self.values(each, examples.new_zeros(rows)), output, len(examples))
        return () if off is None else (Finding(off, self._uses_more),)

    def _uses_more(self) -> TargetError:
        return TargetError(
            f"{self} gives a row of the output another value at another place of the batch or beside other rows: it "
            f"uses data of each example, or mixes them. {HINT}"
        )

    def values(self, output: Output, examples: Tensor) -> Tensor:
        """(B, T)."""
        placed = _takes_examples(self.function)
        hint = "" if placed else f". {HINT}"
        try:
            found = self.function(output, examples + self._first) if placed else self.function(output)
        except (AttributionError, MemoryError):
            raise
        except Exception as error:
            if out_of_memory(error):
                raise
            raise ModelError(
                f"{self} fails on what the model returns, {described(output)}: {type(error).__name__}: {error}{hint}"
            ) from error
        if not isinstance(found, Tensor) or not found.is_floating_point() or found.ndim not in (1, 2):
            raise ModelError(f"{self} gives {described(found)}; expected floats (B,) or (B, T), one row per example")
        if len(found) != len(examples) or not found.numel():
            raise ModelError(
                f"{self} gives {described(found)} for {len(examples)} examples; expected one row per example{hint}"
            )
        return found[:, None] if found.ndim == 1 else found

    def __str__(self) -> str:
        return str(self.name)


def called(function: Callable[..., Any]) -> str:
    """The name of a function, of another object that can be called that of its type."""
    return str(getattr(function, "__name__", type(function).__name__))


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
    keywords = [p for p in parameters if p.kind == p.KEYWORD_ONLY and p.default is p.empty]
    if len(needed) > 2 or keywords or (not positional and not any(p.kind == p.VAR_POSITIONAL for p in parameters)):
        raise TargetError(
            f"a score takes (output) or (output, examples); {called(function)!r} takes "
            f"{', '.join(p.name for p in parameters) or 'nothing'}"
        )
    return len(needed) == 2 or (len(positional) > 1 and positional[1].name == "examples")
