"""The forward of Grad-CAM: logits, layers, and where gradients with respect to them are taken."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from attribution.attributor import Run
from attribution.errors import ModelError
from attribution_hooks.capture import capture

_WRITTEN = "leaf Variable that requires grad"


@dataclass(frozen=True)
class Forward:
    """What one forward gave.

    Attributes:
        logits: (N, K), with graph; without one where the model cuts the gradient. Of a score that is not one of classes
            (N, T), its values.
        outputs: Of the layers, as they gave them.
        edges: Where in the graph the outputs stand, of those that are copies; the others are in the graph themselves.
    """

    logits: Tensor
    outputs: Mapping[str, Tensor]
    edges: Mapping[str, GradientEdge]


def forward(runs: Sequence[Run[Any]], names: Sequence[str]) -> Forward:
    """The graph begins at the first layer, and at the images only where a layer's readers would be missed.

    Runs are asked about the same score, which is settled for each of them.

    The gradient of a layer's output is that of the tensor as plain autograd has it. Who holds the tensor that a layer
    returned reads what is differentiated, since it is the very tensor. Three kinds of readers a graph that begins there
    cannot have: who read it before the layer returned its input (``nn.Identity``, views); who writes into it, which no
    leaf allows; and the rest of a network that sets gradient modes of its own. For them the forward is run once more.

    Raises:
        ModelError: The model fails on these inputs, or does not return logits.
        LayerError: A layer does not exist, never ran, ran several times, or gave no tensor.
    """
    run = runs[0]

    def logits_of(output: Any) -> Tensor:
        found = [each.matrix(output) for each in runs]
        return found[0]

    try:
        with torch.no_grad(), capture(run.model, names, gradients="from the layers") as caught:
            logits = logits_of(run.forward(run.inputs))
        if caught.direct and logits.requires_grad:
            return Forward(logits, {name: caught[name] for name in names}, {})
    except ModelError as error:
        if _WRITTEN not in str(error):
            raise
    with torch.enable_grad(), capture(run.model, names, gradients="to the layers") as caught:
        logits = logits_of(run.forward(run.inputs.detach().requires_grad_()))
    return Forward(logits, {name: caught[name] for name in names}, caught.edges)
