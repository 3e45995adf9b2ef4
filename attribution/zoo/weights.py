"""Weights: read from a file without running code from it, and put into a model without gaps."""

import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from attribution.errors import ModelError

_WRAPPERS = ("module.", "_orig_mod.", "module.")  # DataParallel and torch.compile, in either order
_SHOWN = 3


def read_state(path: Path) -> "OrderedDict[str, Tensor]":
    """The state dict in a file.

    Only tensors are read: a pickle that names anything else is refused before it runs.

    Args:
        path: ``.safetensors``, or what ``torch.save`` wrote: a state dict, or a checkpoint that holds one
            under ``"state_dict"`` or ``"model"``.

    Raises:
        ModelError: the file is missing or damaged, or holds something else: a pickled module, an exported or
            scripted program.
    """
    if not path.is_file():
        what = "is no regular file" if path.exists() else "does not exist"
        raise ModelError(f"the weights file {path} {what}; give a .pth, .pt or .safetensors file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    _refuse_programs(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load answers foreign bytes with UnpicklingError, RuntimeError, EOFError, KeyError and others.
    except Exception as error:
        raise ModelError(
            f"{path} holds no plain tensors ({first_line(error)}); pickled modules are refused because they run "
            "code: save model.state_dict() instead"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{path} holds {type(content).__name__}; expected a state dict: names and tensors")
    foreign = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if foreign:
        raise ModelError(
            f"{path} holds no state dict: {_some(foreign)} no tensor; save model.state_dict(), alone or under the "
            "key 'state_dict'"
        )
    state = OrderedDict((str(name), value) for name, value in content.items())
    # Layers such as those of MNASNet ask for the version that torch.save keeps beside the tensors.
    if hasattr(content, "_metadata"):
        state._metadata = content._metadata  # type: ignore[attr-defined]
    return state


def fill(model: nn.Module, state: "OrderedDict[str, Tensor]", source: str) -> None:
    """Put a state dict into a model; every tensor must have its place and every place its tensor.

    The prefixes ``module.`` and ``_orig_mod.`` of wrapped models are taken off, and the key style of the first
    DenseNets is brought up to date.

    Raises:
        ModelError: tensors are missing, left over or of another shape; names the first few of each.
    """
    expected = model.state_dict()
    for prefix in _WRAPPERS:
        if not any(name.startswith(prefix) for name in expected):
            consume_prefix_in_state_dict_if_present(state, prefix)
    for name in list(state):
        renamed = re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)
        if renamed not in state and renamed in expected:
            state[renamed] = state.pop(name)
    if not hasattr(state, "_metadata"):
        # Without a version batch norms accept old files that lack a counter, but MNASNet refuses to load.
        state._metadata = OrderedDict({"": expected._metadata[""]})  # type: ignore[attr-defined]
    misshaped = [
        f"{name} is {tuple(value.shape)}, expected {tuple(expected[name].shape)}"
        for name, value in state.items()
        if name in expected and value.shape != expected[name].shape
    ]
    missing: list[str] = []
    left_over: list[str] = []
    if misshaped:
        missing = [name for name in expected if name not in state and not name.endswith(".num_batches_tracked")]
        left_over = [name for name in state if name not in expected]
    else:
        try:
            result = model.load_state_dict(state, strict=False)
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"the weights {source} do not fit the model: {first_line(error)}") from error
        missing, left_over = result.missing_keys, result.unexpected_keys
    faults = [("missing", missing), ("unknown to the model", left_over), ("of another shape", misshaped)]
    if any(found for _, found in faults):
        told = "; ".join(f"{len(found)} {what} ({_some(found)})" for what, found in faults if found)
        raise ModelError(f"the weights {source} do not fit the model: {told}")


def first_line(error: BaseException | str) -> str:
    """The first line of an error's text, or its kind where the text is empty; at most 200 characters."""
    lines = str(error).strip().splitlines()
    return lines[0].strip()[:200] if lines else type(error).__name__


def _read_safetensors(path: Path) -> "OrderedDict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return OrderedDict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is no intact safetensors file: {first_line(error)}") from error


def _refuse_programs(path: Path) -> None:
    """TorchScript and .pt2 archives are zip files like state dicts, but hold programs."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = [name.rpartition("/")[2] for name in archive.namelist()]
    if "data.pkl" not in members or "constants.pkl" in members:
        raise ModelError(
            f"{path} is an archive with a program (TorchScript, torch.export or another zip file); save "
            "model.state_dict() with torch.save instead"
        )


def _some(found: list[str]) -> str:
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more
