"""Ablation-CAM by Captum's ``LayerFeatureAblation``."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import torch
from captum.attr import LayerActivation, LayerFeatureAblation
from torch import Tensor, nn

from attribution import layers
from attribution.layers import LayerName
from attribution.running.execution import CPU_WINDOWS
from attribution.techniques import AblationCAM
from attribution.techniques.cam.tokens import Grid
from attribution_captum.cam import CaptumCAM, ScoreOfOne


class CaptumAblationCAM(CaptumCAM[AblationCAM]):
    """`AblationCAM` by one ``LayerFeatureAblation`` call per layer and target, with one feature for each channel."""

    technique_type: ClassVar[type[AblationCAM]] = AblationCAM

    def shown(
        self, name: LayerName, module: nn.Module, grid: Grid
    ) -> AbstractContextManager[tuple[nn.Module, LayerName]]:
        """Captum hands the network its own tensors, so that whoever writes into a layer's output would change them."""
        return _copied(name, module, grid)

    def column(self, score: ScoreOfOne, layer: nn.Module, inputs: tuple[Tensor, ...], name: LayerName) -> Tensor:
        """Σ over channels of Captum's difference, which it writes at every place, by |score|, times the activation."""
        run, examples = score.run, torch.arange(len(inputs[0]), device=inputs[0].device)
        with torch.no_grad():
            activation = LayerActivation(score, layer).attribute(inputs, additional_forward_args=(examples,))
            assert run.clean is not None  # the first forward shows the inputs
            run.extras |= run.technique.told(name.text, activation, run.clean, run.extras["largest_score"])
            channels = torch.arange(activation.shape[1], device=activation.device)
            lost = LayerFeatureAblation(score, layer).attribute(
                inputs,
                additional_forward_args=(examples,),
                layer_mask=channels.view(1, -1, *[1] * (activation.ndim - 2)).expand(1, *activation.shape[1:]),
                perturbations_per_eval=_at_once(score, len(channels)),
            )
            part = 1 / run.clean[:, score.column].abs().to(activation)
            return torch.einsum("nk...,nk...,n->n...", lost.to(activation), activation, part)


@contextmanager
def _copied(name: LayerName, module: nn.Module, grid: Grid) -> Iterator[tuple[nn.Module, LayerName]]:
    """A module through which a layer's output or input goes as (N, D, *places), and copies of what it gives go on."""
    probe, owner, armed, handle = nn.Identity(), threading.get_ident(), True, None

    def detour(value: Any) -> Any:
        keys = name.keys or (layers.only_tensor(value) if name.entry else ())
        tensor = layers.item(value, keys)
        return layers.replaced(value, keys, grid.unmap(probe(grid.map(tensor.clone())), tensor).clone())

    def after(module: nn.Module, args: Any, output: Any) -> Any:
        return detour(output) if armed and threading.get_ident() == owner else None

    def before(module: nn.Module, args: Any) -> Any:
        given = detour(dict(enumerate(args))) if armed and threading.get_ident() == owner else None
        return None if given is None else tuple(given.values())

    try:
        handle = module.register_forward_pre_hook(before) if name.entry else module.register_forward_hook(after)
        yield probe, replace(name, keys=(), entry=False)
    finally:
        armed = False  # an interrupt may have hidden the handle
        if handle is not None:
            handle.remove()


def _at_once(score: ScoreOfOne, channels: int) -> int:
    """Channels per forward of all examples."""
    run, count = score.run, len(score.run.inputs)
    shown = sum(2 * tensor.nbytes for name, tensor in run.inputs.values.items() if run.inputs.axes.get(name))
    most = max(1, CPU_WINDOWS // count) if run.inputs.device.type == "cpu" else None
    return run.execution.chunk(shown + count * layers.peak_bytes(run.model, run.inputs), channels, most=most)
