"""Attributors that are wrong on purpose, and one that is right."""

import random
import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attribution import Activations, Attribution, Attributor, GradCAM, Run
from attribution.technique import Maps

Deed = Callable[[Attributor[Any], Run[Any]], None]


class Honest(Attributor[GradCAM]):
    """Grad-CAM that captures as it should: keep the output, hand the network a clone."""

    technique_type = GradCAM
    backend = "planted"

    def compute(self, run: Run[Any]) -> Maps:
        return cam(self, run, kept_and_cloned)


class HonestActivations(Attributor[Activations]):
    """Activations, a copy of each."""

    technique_type = Activations
    backend = "planted"

    def compute(self, run: Run[Any]) -> Maps:
        return activations(self, run, lambda output: output.clone())


def kept_and_cloned(output: Tensor, kept: list[Tensor]) -> Tensor:
    kept.append(output)
    return output.clone()


def layer(run: Run[Any], name: str) -> nn.Module:
    from attribution import layers

    return layers.find(run.model, name)[1]


def cam(attributor: Attributor[Any], run: Run[Any], keep: Callable[[Tensor, list[Tensor]], Tensor | None]) -> Maps:
    """Grad-CAM of what a hook keeps; ``keep`` returns what the network goes on with."""
    kept: dict[str, list[Tensor]] = {name: [] for name in run.technique.layers}
    handles = [
        layer(run, name).register_forward_hook(lambda module, args, output, name=name: keep(output, kept[name]))
        for name in kept
    ]
    try:
        run.inputs.requires_grad_()
        logits = run.forward(run.inputs)
        scores = run.scores(logits)
    finally:
        for handle in handles:
            handle.remove()
    maps = {}
    for name, tensors in kept.items():
        columns = []
        for score in scores.unbind(1):
            (gradient,) = torch.autograd.grad(score.sum(), tensors[-1], retain_graph=True)
            columns.append((gradient.mean(dim=(2, 3), keepdim=True) * tensors[-1]).sum(dim=1))
        maps[name] = torch.stack(columns, dim=1)
    return maps


def activations(attributor: Attributor[Any], run: Run[Any], keep: Callable[[Tensor], Tensor]) -> Maps:
    kept: dict[str, Tensor] = {}
    handles = [
        layer(run, name).register_forward_hook(
            lambda module, args, output, name=name: kept.__setitem__(name, keep(output))
        )
        for name in run.technique.layers
    ]
    try:
        with torch.no_grad():
            run.forward(run.inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: kept[name] for name in run.technique.layers}


def first(attributor: Attributor[Any]) -> nn.Conv2d:
    found = next(module for module in attributor.model.modules() if isinstance(module, nn.Conv2d))
    assert isinstance(found, nn.Conv2d)
    return found


def leaves_a_hook(attributor: Attributor[Any], run: Run[Any]) -> None:
    first(attributor).register_forward_hook(lambda module, args, output: None)


def switches_to_eval(attributor: Attributor[Any], run: Run[Any]) -> None:
    attributor.model.eval()


def replaces_a_parameter(attributor: Attributor[Any], run: Run[Any]) -> None:
    conv = first(attributor)
    if isinstance(conv.bias, nn.Parameter):
        grad = conv.bias.grad
        conv.bias = nn.Parameter(conv.bias.detach().clone())
        conv.bias.grad = grad


def changes_a_weight(attributor: Attributor[Any], run: Run[Any]) -> None:
    next(attributor.model.parameters()).data.view(-1)[0] += 1e-3


def moves_a_buffer(attributor: Attributor[Any], run: Run[Any]) -> None:
    attributor.model.get_buffer("norm.running_mean").data.mul_(0.9)


def fills_grad(attributor: Attributor[Any], run: Run[Any]) -> None:
    run.forward(run.inputs).sum().backward()


def edits_inplace(attributor: Attributor[Any], run: Run[Any]) -> None:
    for module in attributor.model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False


def sets_an_attribute(attributor: Attributor[Any], run: Run[Any]) -> None:
    vars(attributor.model)["explained"] = True


def draws_a_number(attributor: Attributor[Any], run: Run[Any]) -> None:
    random.random()


def switches_a_mode(attributor: Attributor[Any], run: Run[Any]) -> None:
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark


def silences_warnings(attributor: Attributor[Any], run: Run[Any]) -> None:
    warnings.simplefilter("ignore")


def keeps_a_file_open(attributor: Attributor[Any], run: Run[Any]) -> None:
    OPEN.append(open(__file__, "rb"))  # noqa: SIM115  # the point of it


def keeps_a_thread(attributor: Attributor[Any], run: Run[Any]) -> None:
    threading.Thread(target=STOP.wait, daemon=True).start()


OPEN: list[Any] = []
STOP = threading.Event()

DEEDS: list[tuple[str, Deed]] = [
    ("hooks", leaves_a_hook),
    ("training", switches_to_eval),
    ("parameters", replaces_a_parameter),
    ("values", changes_a_weight),
    ("buffers", moves_a_buffer),
    ("grad", fills_grad),
    ("inplace", edits_inplace),
    ("attributes", sets_an_attribute),
    ("random", draws_a_number),
    ("modes", switches_a_mode),
    ("process", silences_warnings),
    ("process", keeps_a_file_open),
    ("process", keeps_a_thread),
]


def doing(deed: Deed) -> type[Attributor[GradCAM]]:
    """Right, but for what it does on the way."""

    class Violator(Honest):
        def compute(self, run: Run[Any]) -> Maps:
            maps = super().compute(run)
            deed(self, run)
            return maps

    return Violator


class WritesTheInputs(Honest):
    def attribute(self, inputs: Any = None, target: Any = None) -> Attribution:  # type: ignore[misc]
        result = super().attribute(inputs, target)
        inputs.data.mul_(0.5)
        return result


class Freezes(Honest):
    """After its work: what ``compute`` freezes is given back."""

    def attribute(self, inputs: Any = None, target: Any = None) -> Attribution:  # type: ignore[misc]
        result = super().attribute(inputs, target)
        self.model.requires_grad_(False)
        return result


class StoredWithoutClone(Honest):
    def compute(self, run: Run[Any]) -> Maps:
        return cam(self, run, lambda output, kept: kept.append(output))


class DetachedOnly(HonestActivations):
    def compute(self, run: Run[Any]) -> Maps:
        return activations(self, run, lambda output: output.detach())


class BackwardHook(Honest):
    def compute(self, run: Run[Any]) -> Maps:
        (name,) = run.technique.layers
        gradients: list[Tensor] = []
        outputs: list[Tensor] = []
        module = layer(run, name)

        def keep(module: nn.Module, into: Any, out: Any) -> None:
            gradients.append(out[0])

        handles = [
            module.register_forward_hook(lambda module, args, output: outputs.append(output.detach().clone())),
            module.register_full_backward_hook(keep),
        ]
        try:
            run.inputs.requires_grad_()
            logits = run.forward(run.inputs)
            scores = run.scores(logits)
            for score in scores.unbind(1):
                torch.autograd.grad(score.sum(), run.inputs.tensor, retain_graph=True)
        finally:
            for handle in handles:
                handle.remove()
        columns = [(gradient.mean(dim=(2, 3), keepdim=True) * outputs[0]).sum(dim=1) for gradient in gradients]
        return {name: torch.stack(columns, dim=1)}


LastCallOnly = Honest
"""`cam` takes the last of what was kept: right, but for modules that run twice."""


class HidesNaN(HonestActivations):
    def compute(self, run: Run[Any]) -> Maps:
        return {name: map_.nan_to_num() for name, map_ in super().compute(run).items()}


class MinMax(Honest):
    def compute(self, run: Run[Any]) -> Maps:
        maps = super().compute(run)
        low = {name: map_.amin(dim=(2, 3), keepdim=True) for name, map_ in maps.items()}
        high = {name: map_.amax(dim=(2, 3), keepdim=True) for name, map_ in maps.items()}
        return {name: (map_ - low[name]) / (high[name] - low[name]) for name, map_ in maps.items()}
