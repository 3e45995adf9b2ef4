"""From whatever a model returns to the tensor in it that a score reads."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from inspect import isroutine
from typing import Any

from torch import Tensor

from attribution.errors import AttributionError, ModelError, TargetError
from attribution.numbers import integer

Selector = str | int | Callable[[Any], Tensor] | None
"""Which tensor of an output: a key, an index, a path (``"heads.1"``), the name of an attribute, or a function of the
output; ``None``: the output itself, or its ``logits``."""

FOUND_ALONE = "logits"
"""An entry of this name is taken without being asked for, as the models of Hugging Face return it."""


def checked(owner: str, output: object) -> Selector:
    """A selector as the user gives it.

    Raises:
        TargetError: It is none.
    """
    if output is None or callable(output):
        return output
    if isinstance(output, str) and output:
        return str(output)  # numpy has strings of its own
    number = integer(output)
    if number is None:
        raise TargetError(
            f"{owner}.output is {output!r}; give a key, an index, a path such as 'heads.1', an attribute's name, or a "
            "function of the output"
        )
    return number


def select(output: Any, selector: Selector) -> Tensor:
    """The tensor that a selector names.

    Raises:
        ModelError: The output has no such entry, or it is no floating-point tensor of numbers; or an index is asked of
            a tensor, whose rows are examples.
    """
    found = output if selector is None else entry(output, selector)
    if selector is None and not isinstance(found, Tensor):
        found = _entry(found, FOUND_ALONE, None)
    where = "the model returns" if selector is None else f"output={_said(selector)} gives"
    shown = output if selector is None and not isinstance(output, Tensor) and found is None else found
    if not isinstance(found, Tensor):
        raise ModelError(
            f"{where} {described(shown)}; name the tensor in it by output=… of a score, such as {_hint(shown)} in "
            f"target=ClassScore({_hint(shown)})"
        )
    if found.is_nested or found.is_meta or str(found.layout) != "torch.strided" or not found.is_floating_point():
        raise ModelError(f"{where} {described(found)}; expected a dense tensor of floats")
    return found


def described(output: Any) -> str:
    """What an output is, in a few words."""
    if isinstance(output, Tensor):
        if output.is_nested or output.is_meta or str(output.layout) != "torch.strided":
            kind = "nested" if output.is_nested else "meta" if output.is_meta else str(output.layout)
            return f"a {kind} tensor"
        return f"a tensor {tuple(output.shape)} of {output.dtype}"
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} with keys {[*output]}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"


_MISSING = object()


def entry(output: Any, selector: str | int | Callable[[Any], Any]) -> Any:
    """What a selector names in an output, whatever that is.

    Raises:
        ModelError: The output has no such entry, or an index is asked of a tensor.
    """
    if callable(selector):
        try:
            return selector(output)
        except AttributionError:
            raise
        except Exception as error:
            raise ModelError(
                f"output={_said(selector)} fails on what the model returns, {described(output)}: "
                f"{type(error).__name__}: {error}"
            ) from error
    whole = _entry(output, selector, _MISSING)
    if whole is not _MISSING:
        return whole
    found, seen = output, list[str]()
    for step in selector.split(".") if isinstance(selector, str) else [selector]:
        if isinstance(found, Tensor):
            raise ModelError(
                f"output={selector!r} asks for an entry of {described(found)}, whose rows are examples; give a "
                "function: output=lambda out: …, or ValueScore(index=…)"
            )
        before, found = found, _entry(found, step, _MISSING)
        if found is _MISSING:
            place = f" at {'.'.join(seen)!r}" if seen else ""
            raise ModelError(
                f"output is {selector!r}, but the model returns {described(before)}{place}; e.g. {_hint(before)}"
            )
        seen.append(str(step))
    return found


def _entry(output: Any, step: str | int, otherwise: Any) -> Any:
    """One entry: of a mapping by key, of a sequence by index, else an attribute; Hugging Face's take all three."""
    if isinstance(output, Tensor):
        return otherwise
    number = integer(step) if not isinstance(step, str) else int(step) if step.lstrip("-").isdecimal() else None
    try:
        if isinstance(output, Mapping):
            for key in (step, number, str(step)):
                if key is not None and key in output:
                    return output[key]
        if number is not None and not (isinstance(output, Mapping) and type(output) is dict):
            return output[number]
    except Exception:  # the output may be an object with code of its own
        return otherwise
    if not isinstance(step, str) or not step.isidentifier():
        return otherwise
    try:
        found = getattr(output, step, otherwise)
    except Exception:
        return otherwise
    return otherwise if isroutine(found) else found  # the methods of a dict are none of its entries


def _hint(output: Any) -> str:
    if isinstance(output, Mapping) and output:
        return f"output={next(iter(output))!r}"
    if isinstance(output, tuple | list) and output:
        return "output=0"
    if is_dataclass(output):
        return f"output={fields(output)[0].name!r}"
    return "output=lambda out: …"


def _said(selector: Any) -> str:
    return getattr(selector, "__name__", type(selector).__name__) if callable(selector) else repr(selector)
