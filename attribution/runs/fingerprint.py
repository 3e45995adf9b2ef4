"""What a result depends on, as short texts that are equal where nothing changed."""

import hashlib
import inspect
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import CellType, CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_DEPTH = 8
_PACKAGES = ("torch-attribution", "torch", "torchvision", "numpy", "pillow")
_LIBRARIES = ("torch", "torchvision")
"""Of their files a digest is taken as they are: to find a class in one takes longer than to explain an image."""


def of_bytes(parts: Iterable[bytes]) -> str:
    """SHA-256 of parts one after another, in hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.is_quantized:
            digest.update(repr(tensor).encode())
        elif tensor.layout == torch.strided and tensor.numel():
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def of_model(model: nn.Module) -> dict[str, str]:
    """Its structure, its code and its weights.

    Code is that of the modules' classes; what they call elsewhere is told by the versions of packages alone.
    """
    structure = [f"{name} {_called(type(module))} {module.extra_repr()}" for name, module in model.named_modules()]
    kinds = sorted({type(module) for module in model.modules()}, key=_called)
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "structure": of_bytes(line.encode() for line in structure),
        "code": of_bytes(_code(kind) for kind in kinds),
        "weights": of_tensors(held),
    }


def of_function(function: Callable[..., Any] | None) -> str:
    """A few words that name a function: what it prints, or its source and what it does where it prints an address.

    What it does is its code with its defaults and what it holds of the functions around it. What it knows by a name of
    its module is not looked into.
    """
    if function is None:
        return "none"
    told = repr(function)
    if " at 0x" not in told:
        return told
    return f"{_ADDRESS.sub('', told)} {of_bytes(map(str.encode, _held(function, 0)))[:16]}"


def of_score(score: Any) -> str:
    """Of the functions that a score, and any score in it, takes; empty where it takes none."""
    held = [getattr(score, field.name) for field in fields(score)] if is_dataclass(score) else []
    functions = [each for each in held if is_dataclass(each) or (callable(each) and not isinstance(each, type))]
    found = [of_score(each) if is_dataclass(each) else of_function(each) for each in functions]
    return " ".join(filter(None, found))


def _held(value: Any, depth: int) -> Iterator[str]:
    """All that a function is made of, as texts."""
    code = value if isinstance(value, CodeType) else getattr(value, "__code__", None)
    if isinstance(value, Tensor):
        yield of_tensors({"": value})
    elif depth > _DEPTH:
        yield type(value).__name__
    elif code is not None:
        held = () if value is code else (_source(value), value.__defaults__, value.__kwdefaults__, value.__closure__)
        for each in (code.co_code.hex(), code.co_names, code.co_consts, *held):
            yield from _held(each, depth + 1)
    elif isinstance(value, partial):
        for each in (value.func, value.args, value.keywords):
            yield from _held(each, depth + 1)
    elif isinstance(value, CellType):
        try:
            yield from _held(value.cell_contents, depth + 1)
        except ValueError:  # it is empty yet
            yield ""
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield str(name)
            yield from _held(each, depth + 1)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _held(each, depth + 1)
    elif isinstance(value, frozenset | set):
        yield from sorted(map(repr, value))  # their order is another one in each process
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield from _held(torch.as_tensor(value), depth)
    else:
        told = repr(value)
        yield told if " at 0x" not in told else f"{type(value).__qualname__} {_source(type(value))}"


def of_code(kind: type) -> str:
    """Of a class, by its source."""
    return f"{_called(kind)} {of_bytes([_source(kind).encode()])[:16]}"


def versions(*distributions: str) -> dict[str, str]:
    """Of Python, of what computes and reads, and of others by name."""
    found = {"python": platform.python_version()}
    for name in (*_PACKAGES, *distributions):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _called(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _code(kind: type) -> bytes:
    """What tells the code of a class: its source, or all of its file where that is a library's and nobody edits it."""
    if kind.__module__.partition(".")[0] in _LIBRARIES:
        try:
            return hashlib.sha256(Path(inspect.getfile(kind)).read_bytes()).digest()
        except (OSError, TypeError):
            return b""
    return _source(kind).encode()


def _source(thing: Any) -> str:
    """The source, or nothing where Python does not know it, as of a class made in a notebook."""
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return ""
