"""What a model returned of each image of a batch, wherever in its output a tensor lies."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attribution.errors import AttributionError
from attribution.inputs.inputs import Inputs
from attribution.isolation.restore import run_itself
from attribution.isolation.torch_modes import devices_of, note_random, random_states
from attribution.isolation.undo import Undo
from attribution.running.execution import running
from attribution.running.nested import DEPTH, items

Rows = dict[tuple[object, ...], list[Tensor]]
"""Where in the output a tensor lies → what is in it of each image."""


@dataclass(frozen=True)
class Answer:
    """What the model returned of each image, and whether it drew random numbers."""

    rows: Rows
    draws: bool


def answer(model: nn.Module, images: Inputs, *, inside: bool) -> Answer:
    """What the model returns for these examples; with ``inside``, what every module in it returns as well."""
    rows: Rows = {}

    def note(module: nn.Module, args: object, output: object) -> None:
        _collect(output, len(images), (id(module),), rows)

    undo = Undo()
    try:
        try:
            run_itself(undo, model)  # which gives the hooks back as well
            for module in model.modules() if inside else ():
                module.register_forward_hook(note)
            devices = devices_of(model, *images.tensors())
            restart = note_random(undo, devices)
            before, output = random_states(devices), None
            try:
                with torch.no_grad(), running(images):
                    output = images.clone().into(model)
            except AttributionError:
                if not rows:  # else the layers that ran before it failed tell enough
                    raise
            draws = not all(map(torch.equal, before, random_states(devices)))
            restart()
        finally:
            undo.back()
    finally:
        undo.back()
    _collect(output, len(images), (), rows)
    return Answer(rows, draws)


def _collect(output: Any, images: int, place: tuple[object, ...], rows: Rows) -> None:
    """Note the rows of tensors, wherever they lie, and the items of a list that has a dict for each image."""
    if isinstance(output, Tensor):
        readable = output.layout == torch.strided and not (output.is_nested or output.is_meta or output.is_quantized)
        if readable and output.ndim and len(output) == images:
            rows[place] = [row.detach() for row in output.unbind()]
        return
    one_each = isinstance(output, list | tuple) and len(output) == images
    if one_each and all(isinstance(item, Mapping) for item in output):
        for name in output[0]:
            if all(isinstance(item.get(name), Tensor) for item in output):
                rows[*place, name] = [item[name].detach() for item in output]
        return
    if len(place) < DEPTH:  # an object may hold itself
        for name, item in items(output).items():
            _collect(item, images, (*place, name), rows)
