"""Weights: read from a file without running code from it, and put into a model without gaps."""

import os
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present
from torch.nn.parameter import is_lazy

from attribution import paths
from attribution.errors import ModelError
from attribution.running.execution import first_line
from attribution.zoo import archives

_KEYS = ("state_dict", "model_state_dict", "model")
_WRAPPERS = ("module.", "_orig_mod.", "module.")  # DataParallel and torch.compile, in either order
_SHOWN = 3


def read_state(path: Path) -> "OrderedDict[str, Tensor]":
    """The state dict in a file.

    Only tensors are read: a pickle that names anything else is refused before it runs.

    Args:
        path: A safetensors file, whatever its suffix, or what ``torch.save`` wrote: a state dict, or a checkpoint that
            holds one under ``"state_dict"``, ``"model_state_dict"`` or ``"model"``.

    Raises:
        ModelError: the file is missing or damaged, or holds something else: a pickled module, an exported or
            scripted program.
    """
    if fault := paths.fault(path):
        raise ModelError(f"the weights file {paths.named(path)} {fault}; give a .pth, .pt or .safetensors file")
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    try:
        if _is_safetensors(path):
            return _read_safetensors(path)
        archives.check(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"the weights file {path} cannot be read: {error.strerror or error}") from error
    # torch.load answers foreign bytes with UnpicklingError, RuntimeError, EOFError, KeyError and others.
    except Exception as error:
        raise ModelError(
            f"{path} holds no plain tensors ({_fault(error)}); pickled modules are refused because they run "
            "code: save model.state_dict() instead"
        ) from error
    inner = [key for key in _KEYS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)]
    if len(inner) > 1:
        raise ModelError(f"{path} holds weights under {' and '.join(map(repr, inner))}; save the one you mean alone")
    if inner:
        content = content[inner[0]]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{path} holds {type(content).__name__}; expected a state dict: names and tensors")
    foreign = [str(name) for name, value in content.items() if not isinstance(value, Tensor) or value.is_nested]
    if foreign:
        raise ModelError(
            f"{path} holds no state dict: {_some(foreign)} no tensor; save model.state_dict(), alone or under the "
            "key 'state_dict'"
        )
    state = OrderedDict((str(name), value) for name, value in content.items())
    if len(state) < len(content):
        raise ModelError(f"{path} holds two weights of one name, as a number and as text; save model.state_dict()")
    # Layers such as those of MNASNet ask for the version that torch.save keeps beside the tensors.
    if hasattr(content, "_metadata"):
        state._metadata = content._metadata  # type: ignore[attr-defined]
    return state


def fill(model: nn.Module, state: "OrderedDict[str, Tensor]", source: str) -> None:
    """Put a state dict into a model; every tensor must have its place and every place its tensor.

    The prefixes ``module.`` and ``_orig_mod.`` of wrapped models are taken off, and so is one that all names share,
    such as ``net.`` in a checkpoint of Lightning; the key style of the first DenseNets is brought up to date.

    Floats are rounded to the model's dtype. Whatever else torch would change without a word is refused.

    Raises:
        ModelError: tensors are missing, left over or of another shape, names the first few of each; two tensors mean
            one place; a place would lose what its tensor holds (an imaginary part, a fraction, a number too large or
            most of them since they are too small), or would take integers for floats.
    """
    expected = model.state_dict()
    _rename(state, expected, source)
    if not hasattr(state, "_metadata"):
        # Without a version batch norms accept old files that lack a counter, but MNASNet refuses to load.
        state._metadata = OrderedDict({"": expected._metadata[""]})  # type: ignore[attr-defined]
    misshaped = [
        f"{name} is {tuple(value.shape)}, expected {tuple(expected[name].shape)}"
        for name, value in state.items()
        if _is_place(expected.get(name)) and value.shape != expected[name].shape
    ]
    missing: list[str] = []
    left_over: list[str] = []
    if misshaped:
        missing = _missing(state, expected)
        left_over = [name for name in state if name not in expected]
    else:
        _check_values(state, expected, source)
        try:
            result = model.load_state_dict(state, strict=False)
        # A model may have its own code for loading, which may raise anything.
        except Exception as error:
            raise ModelError(f"the weights {source} do not fit the model: {_misfit(error)}") from error
        missing, left_over = result.missing_keys, result.unexpected_keys
    faults = [("missing", missing), ("unknown to the model", left_over), ("of another shape", misshaped)]
    if any(found for _, found in faults):
        told = "; ".join(f"{len(found)} {what} ({_some(found)})" for what, found in faults if found)
        raise ModelError(f"the weights {source} do not fit the model: {told}{_head(state, expected, missing)}")


def classes_in(state: "OrderedDict[str, Tensor]", model: nn.Module, source: str) -> int | None:
    """The number of classes of a file that would fit the model if that had as many; ``None``: it fits, or never would.

    Names in ``state`` are brought to those of the model, as `fill` does.

    Raises:
        ModelError: two tensors mean one place.
    """
    expected = model.state_dict()
    _rename(state, expected, source)
    other = _other_heads(state, expected)
    return other[0] if other and not _missing(state, expected) else None


def _other_heads(state: Mapping[str, Tensor], expected: Mapping[str, object]) -> tuple[int, int] | None:
    """Rows in the file and in the model, where all that differs is one number of rows and no name is left over."""
    if any(name not in expected for name in state):
        return None
    other = {
        (len(value), len(place))
        if isinstance(place, Tensor) and value.ndim and place.ndim and value.shape[1:] == place.shape[1:]
        else None
        for name, value in state.items()
        if value.shape != getattr(place := expected[name], "shape", None)
    }
    return next(iter(other)) if len(other) == 1 else None


def _missing(state: Mapping[str, Tensor], expected: Mapping[str, object]) -> list[str]:
    return [name for name in expected if name not in state and not name.endswith(".num_batches_tracked")]


def _head(state: Mapping[str, Tensor], expected: Mapping[str, object], missing: list[str]) -> str:
    """What to do where all but the last layer fits: the file is of a model with another number of classes."""
    other = _other_heads(state, expected)
    if missing or other is None:
        return ""
    own, theirs = other
    return (
        f"; the file is of a model with {own} classes and this one has {theirs}: write a function that makes yours, "
        f"with num_classes={own}, and give --model FILE.py:FUNCTION"
    )


def _fault(error: Exception) -> str:
    """Why torch did not read a file, without its advice to read it by running its code."""
    said = str(error).partition("WeightsUnpickler error: ")[2].strip() or first_line(error)
    said = said.splitlines()[0][:200]
    return type(error).__name__ if "weights_only" in said else said


def _misfit(error: Exception) -> str:
    """What torch says of weights that do not fit, without the heading that names the model only."""
    heading, _, told = first_line(error), *str(error).strip().partition("\n")[1:]
    lines = [line.strip() for line in told.splitlines() if line.strip()] if heading.endswith(":") else []
    return _some(lines, "; ") if lines else heading


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: eight bytes of a length, and a JSON object that is so long."""
    with path.open("rb") as file:
        start = file.read(9)
        return start[8:] == b"{" and 8 + int.from_bytes(start[:8], "little") <= file.seek(0, os.SEEK_END)


def _read_safetensors(path: Path) -> "OrderedDict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return OrderedDict(load_file(path))
    # A dtype that torch lacks is answered with KeyError or AttributeError.
    except (SafetensorError, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ModelError(f"{path} is no intact safetensors file: {first_line(error)}") from error


def _rename(state: "OrderedDict[str, Tensor]", expected: Mapping[str, object], source: str) -> None:
    """Names as the model has them, in place; the metadata's too."""
    for prefix in _WRAPPERS:
        if any(name.startswith(prefix) for name in expected):
            continue
        for name in state:
            if name.startswith(prefix) and (short := name.removeprefix(prefix)) in state:
                raise ModelError(
                    f"the weights {source} hold both {short!r} and {name!r}, which are one place of the model; save "
                    f"those you mean alone, with or without {prefix!r}"
                )
        consume_prefix_in_state_dict_if_present(state, prefix)
    first = next(iter(state), "").partition(".")[0] + "."  # Lightning's is the attribute that holds the model
    inner = [name.removeprefix(first) for name in state if name.startswith(first)]
    if len(inner) == len(state) and not any(name in expected for name in state) and {*inner} <= {*expected}:
        consume_prefix_in_state_dict_if_present(state, first)
    for name in list(state):
        renamed = re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)
        if renamed not in state and renamed in expected:
            state[renamed] = state.pop(name)


def _check_values(state: "Mapping[str, Tensor]", expected: "Mapping[str, Tensor]", source: str) -> None:
    """Every value arrives, rounded at most.

    Raises:
        ModelError: A tensor would lose more than digits, or two tensors that differ go to one place.
    """
    places: dict[tuple[object, ...], str] = {}
    for name, value in state.items():
        place = expected.get(name)
        if not isinstance(place, Tensor):
            continue
        try:
            loss = _loss(value, place.dtype)
        except (RuntimeError, TypeError):  # torch cannot convert between the two, and will say so
            loss = ""
        if loss:
            raise ModelError(
                f"the weights {source} do not fit the model: {name} is {value.dtype}, the model's is {place.dtype}, "
                f"and {loss}"
            )
        if not _is_place(place) or place.is_meta or not place.numel():
            continue
        first = places.setdefault((place.data_ptr(), place.shape, place.stride()), name)
        if first != name and not torch.equal(state[first].to(place.dtype), value.to(place.dtype)):
            raise ModelError(
                f"the weights {source} do not fit the model: {first} and {name} are one tensor in the model, and two "
                "that differ in the file; untie them in the model, or save it with them tied"
            )


def _loss(value: Tensor, dtype: torch.dtype) -> str:
    """What ``value`` would lose in ``dtype`` beside digits, and how to mend it; ``""`` where nothing."""
    if value.dtype == dtype or value.is_meta:  # torch itself refuses to copy from the meta device
        return ""
    if value.is_quantized:
        return "quantised weights are not dequantised; save value.dequantize()"
    if value.is_complex() and not dtype.is_complex:
        return "the imaginary part would be lost; load it into a complex model, or save value.real"
    if (dtype.is_floating_point or dtype.is_complex) and not (value.is_floating_point() or value.is_complex()):
        return f"integers are no weights without their scale; save value.to({dtype}) if they are meant as they are"
    back = value.to(dtype).to(value.dtype)
    if not dtype.is_floating_point and not dtype.is_complex:
        return "" if torch.equal(back, value) else f"some values are lost in it; save them as {dtype}"
    there = value != 0
    if 2 * int((there & (back == 0)).sum()) > int(there.sum()):
        return f"most of its values are too small for it and become 0; use model.to({value.dtype}), or scale them"
    if torch.finfo(dtype).max >= torch.finfo(value.dtype).max or torch.equal(back.isfinite(), value.isfinite()):
        return ""
    return f"some values are too large for it; use model.to({value.dtype}), or scale them"


def _is_place(place: object) -> bool:
    """Whether a state dict's value is a plain tensor with values and a shape."""
    return type(place) is Tensor and not is_lazy(place) and place.layout == torch.strided


def _some(found: list[str], between: str = ", ") -> str:
    more = f"{between}and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return between.join(found[:_SHOWN]) + more
