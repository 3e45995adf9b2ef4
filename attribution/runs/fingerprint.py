"""What a result depends on, as short texts that are equal where nothing changed."""

import hashlib
import inspect
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_PACKAGES = ("torch-attribution", "torch", "torchvision", "numpy", "pillow")


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
        "code": of_bytes(_source(kind).encode() for kind in kinds),
        "weights": of_tensors(held),
    }


def of_function(function: Callable[..., Any] | None) -> str:
    """A few words that name a transform: what it prints, or its source where it prints an address alone."""
    if function is None:
        return "none"
    told = repr(function)
    if " at 0x" not in told:
        return told
    code = getattr(function, "__code__", None)
    held = _source(function if code is not None else type(function))
    if not held and code is not None:
        held = f"{code.co_code.hex()} {code.co_consts!r}"
    return f"{_ADDRESS.sub('', told)} {of_bytes([held.encode()])[:16]}"


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


def _source(thing: Any) -> str:
    """The source, or nothing where Python does not know it, as of a class made in a notebook."""
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return ""
