"""Attention by Captum's activations and gradients of the dropout that the weights pass, as timm's blocks have one."""

import threading
from abc import ABC
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, TypeVar

import torch
from captum.attr import LayerActivation, LayerGradientXActivation
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.errors import LayerError
from attribution.inputs.inputs import Inputs
from attribution.technique import Maps
from attribution.techniques import Attention, AttentionRollout, GradientAttention, LeGrad
from attribution.techniques.attention.family import AttentionMap, Reading
from attribution_captum.cam import ScoreOfOne
from attribution_captum.layer import connected, explained, forward, typed

A = TypeVar("A", bound=AttentionMap)


class _CaptumAttention(Attributor[A], ABC):
    """A technique of attention from whole matrices."""

    backend: ClassVar[str] = "captum"

    def image_bytes(self, model: nn.Module, technique: A, inputs: Inputs) -> int:
        """The forward's graph, and each layer's weights, their gradients and the products of matrices."""
        asked = layers.attention_of(model, inputs, technique.layers)
        matrices = sum(5 * each.heads * each.queries * each.keys for each in asked) * inputs.first.element_size()
        return layers.graph_bytes(model, inputs) + 2 * layers.peak_bytes(model, inputs) + matrices


class CaptumAttention(_CaptumAttention[Attention]):
    """`Attention` by ``LayerActivation`` of a list of layers."""

    technique_type: ClassVar[type[Attention]] = Attention

    def compute(self, run: Run[Attention]) -> Maps:
        """(N, 1, h, w) for each layer."""
        with _written_out(run) as drops:
            matrices = [_fused(run.technique, given) for given in _weights(run, drops)]
        reading = _read(run)
        return dict(zip(run.technique.layers, (_shown(reading, matrix) for matrix in matrices), strict=True))


class CaptumAttentionRollout(_CaptumAttention[AttentionRollout]):
    """`AttentionRollout` by ``LayerActivation``, as the product of the matrices."""

    technique_type: ClassVar[type[AttentionRollout]] = AttentionRollout

    def compute(self, run: Run[AttentionRollout]) -> Maps:
        """(N, 1, h, w) of the input."""
        with _written_out(run) as drops:
            matrices = [_fused(run.technique, given) for given in _weights(run, drops)]
        product = torch.eye(matrices[0].shape[-1], dtype=matrices[0].dtype, device=matrices[0].device)
        for matrix in matrices:
            mixed = matrix + torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
            product = mixed / mixed.sum(dim=-1, keepdim=True) @ product
        return {run.inputs.key(run.inputs.explained[0]): _shown(_read(run), product)}


class CaptumGradientAttention(_CaptumAttention[GradientAttention]):
    """`GradientAttention` by ``LayerActivation`` and ``LayerGradientXActivation``, target by target."""

    technique_type: ClassVar[type[GradientAttention]] = GradientAttention

    def compute(self, run: Run[GradientAttention]) -> Maps:
        """(N, T, h, w) of the input."""
        columns, reading = list[Tensor](), _read(run)
        tensors = tuple(tensor.detach().requires_grad_() for tensor in explained(run))
        with _written_out(run) as drops:
            kept = _weights(run, drops)
            while run.target is None or len(columns) < run.target.shape[1]:
                method = LayerGradientXActivation(ScoreOfOne(run, len(columns)), drops, multiply_by_inputs=False)
                with typed(), connected(layers.no_influence("the attention")):
                    slopes = [_only(each).detach() for each in method.attribute(tensors)]
                moved = torch.zeros_like(kept[0][:, 0])
                for slope, given in zip(slopes, kept, strict=True):
                    raising = _fused(run.technique, torch.where(slope > 0, slope * given, 0.0))
                    moved = moved + raising + raising @ moved
                columns.append(_shown(reading, moved))
        return {run.inputs.key(run.inputs.explained[0]): torch.cat(columns, dim=1)}


class CaptumLeGrad(_CaptumAttention[LeGrad]):
    """`LeGrad` by one ``LayerGradientXActivation`` per layer and target, with that layer's features as the last."""

    technique_type: ClassVar[type[LeGrad]] = LeGrad

    def compute(self, run: Run[LeGrad]) -> Maps:
        """(N, T, h, w) of the input."""
        columns, reading, blocks = list[Tensor](), _read(run), run.technique.blocks(run.model, run.inputs)
        tensors = tuple(tensor.detach().requires_grad_() for tensor in explained(run))
        with torch.no_grad():
            run.scores(run.forward(run.inputs))
        with _written_out(run) as drops:
            while run.target is None or len(columns) < run.target.shape[1]:
                total = tensors[0].new_zeros(())
                for drop, block in zip(drops, blocks, strict=True):
                    method = LayerGradientXActivation(ScoreOfOne(run, len(columns)), drop, multiply_by_inputs=False)
                    with typed(), connected(layers.no_influence("the attention")), _as_last(run, block, blocks[-1]):
                        slope = _only(method.attribute(tensors)).detach()
                    rows = _fused(run.technique, torch.where(slope > 0, slope, 0.0))
                    total = total.to(rows) + rows.sum(dim=1) / (rows.shape[1] * len(blocks))
                columns.append(reading.placed(total))
        return {run.inputs.key(run.inputs.explained[0]): torch.stack(columns, dim=1)}


@contextmanager
def _as_last(run: Run[LeGrad], block: str, last: str) -> Iterator[None]:
    """The last block gives what another one gave."""
    owner, handles, kept = threading.get_ident(), list[RemovableHandle](), list[Any]()

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() == owner:
            kept[:] = [output]

    def give(module: nn.Module, args: Any, output: Any) -> Any:
        return kept[0] if kept and threading.get_ident() == owner else None

    try:
        handles += [run.model.get_submodule(block).register_forward_hook(keep)]
        handles += [run.model.get_submodule(last).register_forward_hook(give)]
        yield
    finally:
        kept.clear()  # an interrupt may have hidden a handle
        for handle in handles:
            handle.remove()


@contextmanager
def _written_out(run: Run[A]) -> Iterator[list[nn.Module]]:
    """The dropout of each layer's weights, which the weights pass while the block lasts.

    Raises:
        LayerError: A layer has no such module, so that Captum has nothing to hook.
    """
    asked = layers.attention_of(run.model, run.inputs, run.technique.layers)
    for layer in asked:
        drop, fused = (getattr(layer.module, name, None) for name in ("attn_drop", "fused_attn"))
        if layer.call or layer.name.endswith("#0") or not isinstance(drop, nn.Module) or not isinstance(fused, bool):
            raise LayerError(
                f"layer {layer.name!r}: Captum reads attention where its weights pass a module of their own, which "
                "timm's attention has (attn_drop, with a switch fused_attn), and this one has not; use backend='hooks'"
            )
    switched = [module for module in run.model.modules() if isinstance(getattr(module, "fused_attn", None), bool)]
    before = [module.fused_attn for module in switched]
    try:
        for module in switched:
            module.fused_attn = False  # type: ignore[assignment]
        yield [layer.module.get_submodule("attn_drop") for layer in asked]
    finally:
        for module, fused in zip(switched, before, strict=True):
            module.fused_attn = fused


def _weights(run: Run[A], drops: Sequence[nn.Module]) -> list[Tensor]:
    """(N, heads, queries, keys) of each layer."""
    with typed():
        found = LayerActivation(partial(forward, run), list(drops)).attribute(explained(run))
    return [_only(each).detach() for each in found]


def _only(value: Tensor | tuple[Tensor, ...]) -> Tensor:
    return value if isinstance(value, Tensor) else value[0]


def _fused(technique: AttentionMap, given: Tensor) -> Tensor:
    heads = given.unbind(dim=1)
    if technique.heads == "mean":
        return torch.stack(heads).sum(dim=0) / len(heads)
    return torch.stack(heads).max(dim=0).values if technique.heads == "max" else heads[int(technique.heads)]


def _read(run: Run[A]) -> Reading:
    reading = run.technique.reading(run.model, run.inputs)
    for key, note in reading.notes.items():
        run.note(key, note)
    return reading


def _shown(reading: Reading, matrix: Tensor) -> Tensor:
    """(N, queries, keys) → (N, 1, h, w): the query's row."""
    grid = reading.placed(matrix)
    if reading.query == "mean":
        return grid[:, reading.leading :].sum(dim=1, keepdim=True) / (matrix.shape[1] - reading.leading)
    return grid[:, reading.query : reading.query + 1]
