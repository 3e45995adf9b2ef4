"""The record of a run that every result carries, whoever computed it."""

import platform
from functools import cache
from importlib.metadata import version

import torch
from torch import nn

from attribution.inputs.inputs import Inputs
from attribution.running import precision


def provenance(attributor: type, model: nn.Module, inputs: Inputs, isolation: str) -> dict[str, str | int | float]:
    """Who computed, on what, where, and with which versions."""
    products = precision.told(inputs.device)
    return {
        "attributor": f"{attributor.__module__}:{attributor.__qualname__}",
        "model": type(model).__name__,
        "inputs": str(inputs),
        "dtype": str(inputs.dtype).removeprefix("torch."),
        "device": str(inputs.device),
        **({} if products is None else {"float32 products": products}),
        "isolation": isolation,
        "threads": torch.get_num_threads(),
        **_versions(),
    }


@cache
def _versions() -> dict[str, str]:
    """Read once: reading a distribution's metadata takes longer than a small layer."""
    return {
        "torch-attribution": version("torch-attribution"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
