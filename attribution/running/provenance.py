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
        **({} if inputs.plain else _beside(inputs)),
        "dtype": str(inputs.dtype).removeprefix("torch."),
        "device": str(inputs.device),
        **({} if products is None else {"float32 products": products}),
        "isolation": isolation,
        "threads": torch.get_num_threads(),
        **_versions(),
    }


def _beside(inputs: Inputs) -> dict[str, str]:
    """How tensors were read that are not explained: a constant with as many rows as examples looks like theirs."""
    read = {"n": "a row for each example", "": "the same for all examples"}
    told = [f"{name.partition('.')[2]}: {read[axes]}" for name, axes in inputs.axes.items() if axes in read]
    return {"inputs beside": "; ".join(told)} if told else {}


@cache
def _versions() -> dict[str, str]:
    """Read once: reading a distribution's metadata takes longer than a small layer."""
    return {
        "torch-attribution": version("torch-attribution"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
