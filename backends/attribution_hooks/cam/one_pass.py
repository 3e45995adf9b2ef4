"""``maps_of``: CAMs of one or several techniques from one forward, and one backward for each chunk of targets."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from attribution import layers
from attribution.attributor import Run
from attribution.technique import Maps
from attribution.techniques.cam.by_channel import CAMByChannel
from attribution.techniques.cam.family import CAM
from attribution.techniques.cam.tokens import Grid
from attribution_hooks.cam import backward
from attribution_hooks.cam.backward import Tail, chunk
from attribution_hooks.cam.closed_form import class_maps, flat
from attribution_hooks.cam.forward import Forward, forward


class Combines(Protocol):
    """What a technique makes of activations and gradients; see `CamAttributor`."""

    by_mean: ClassVar[bool]
    """Whether it has `weights`, else `combine`."""

    def weights(self, activation: Tensor, mean_gradient: Tensor) -> Tensor:
        """(N, T, D)."""

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """(N, T, *places)."""

    def terms(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """(N, T, D, *places), which `combine` adds up."""


Asked = Sequence[tuple[Combines, Run[Any]]]

Rest = Sequence[tuple[dict[str, Tensor], Combines, Sequence[str], bool]]
"""Of each technique its maps so far, who makes them, the layers that lack one, and whether channels are kept."""


def layers_of(techniques: Iterable[CAM]) -> tuple[str, ...]:
    """All layers of some techniques, each once."""
    return tuple(dict.fromkeys(name for technique in techniques for name in technique.layers))


def maps_of(asked: Asked) -> list[Maps]:
    """(N, T, *places) for each layer of each technique, from a graph that begins at the first of all layers.

    Args:
        asked: Who makes maps, and the run of each. All runs are asked about the same score and read tokens alike.
    """
    runs = [run for _, run in asked]
    names, lead = layers_of(run.technique for run in runs), runs[0]
    ran = forward(runs, names)
    score, target = lead.settled
    scores = score.score_of(ran.logits)
    grids = {
        name: lead.technique.grid(name, tuple(output.shape), lead.model, lead.inputs)
        for name, output in ran.outputs.items()
    }
    if not scores.requires_grad:
        raise layers.no_influence(*names)
    with torch.no_grad(), torch.autocast(scores.device.type, enabled=False):
        maps = _maps(asked, ran, scores, target, grids)
    for run in runs:
        for key, note in run.technique.notes({name: grids[name] for name in run.technique.layers}, run.inputs).items():
            run.note(key, note)
    return [{name: own[name] for name in run.technique.layers} for run, own in zip(runs, maps, strict=True)]


def _maps(
    asked: Asked, ran: Forward, scores: Tensor, target: Tensor, grids: Mapping[str, Grid]
) -> list[dict[str, Tensor]]:
    """By technique and layer: in closed form where that is proved, else from gradients that all techniques share."""
    found = {name: grids[name].map(output.detach()) for name, output in ran.outputs.items()}
    maps = [_closed(*each, ran, scores, target, grids) for each in asked]
    rest = [
        (own, maker, [name for name in run.technique.layers if name not in own], _by_channel(run))
        for own, (maker, run) in zip(maps, asked, strict=True)
    ]
    sought = {name: output for name, output in ran.outputs.items() if any(name in names for *_, names, _ in rest)}
    if not sought:
        return maps
    told = [run for (_, run), (*_, names, _) in zip(asked, rest, strict=True) if names]
    tail = Tail(told[0], scores, sought, grids, ran.edges)
    by_mean = all(maker.by_mean for _, maker, names, _ in rest if names)
    kept = 1 if by_mean else backward.COPIES
    size = chunk(told[0], tuple(ran.outputs), kept=kept) if target.shape[1] > 1 else 1
    means = tail.weights(target, size) if by_mean else _by_place(tail, target, size, rest, found, grids)
    for own, maker, names, apart in rest:
        if maker.by_mean:
            product = products if apart else weighted
            own.update({name: product(maker.weights(found[name], means[name]), found[name]) for name in names})
    for run in told[1:]:
        for key in backward.NOTES & told[0].notes.keys():
            run.note(key, told[0].notes[key])
    return maps


def _closed(
    maker: Combines, run: Run[Any], ran: Forward, scores: Tensor, target: Tensor, grids: Mapping[str, Grid]
) -> dict[str, Tensor]:
    """By layer, where the tail is a mean and a linear layer, and there are targets enough for it to pay."""
    maps = {}
    many = target.shape[1] > backward.FEW_TARGETS
    if many and maker.by_mean and run.settled[0].logits and not ran.edges and not _by_channel(run):
        for name in run.technique.layers:
            closed = class_maps(run, scores, ran.outputs[name], grids[name], target, maker.weights)
            if closed is not None:
                maps[name] = closed
    for name in run.technique.layers:
        run.note(f"engine {name}", "closed form" if name in maps else "backward")
    return maps


def _by_place(
    tail: Tail,
    target: Tensor,
    size: int,
    rest: Rest,
    found: Mapping[str, Tensor],
    grids: Mapping[str, Grid],
) -> dict[str, Tensor]:
    """Mean gradients (N, T, D) by layer; what techniques combine place by place is put into their own maps."""
    means: dict[str, list[Tensor]] = {}
    parts: list[dict[str, list[Tensor]]] = [{} for _ in rest]
    averaged = {name for _, maker, names, _ in rest if maker.by_mean for name in names}
    for gradients in tail.proved(target, size):
        for name, gradient in gradients.items():
            mapped, activation = grids[name].map(gradient).movedim(0, 1), found[name].unsqueeze(1)
            if name in averaged:
                means.setdefault(name, []).append(grids[name].mean(gradient).movedim(0, 1).to(target.device))
            for part, (_, maker, names, apart) in zip(parts, rest, strict=True):
                if name in names and not maker.by_mean:
                    combine = maker.terms if apart else maker.combine
                    part.setdefault(name, []).append(combine(activation, mapped).to(target.device))
    for (own, *_), part in zip(rest, parts, strict=True):
        own.update({name: _whole(each) for name, each in part.items()})
    return {name: _whole(each) for name, each in means.items()}


def _whole(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts), dim=1)


def weighted(weights: Tensor, activation: Tensor) -> Tensor:
    """Σ over channels: (N, T, D) and (N, D, *places) → (N, T, *places)."""
    maps = activation.new_empty((*weights.shape[:2], *activation.shape[2:]))
    torch.bmm(weights.to(activation.device), flat(activation), out=maps.view(*weights.shape[:2], -1))
    return maps  # and no view of what was computed, which would be copied to be nobody else's


def products(weights: Tensor, activation: Tensor) -> Tensor:
    """Channel by channel: (N, T, D) and (N, D, *places) → (N, T, D, *places)."""
    return weights.to(activation.device).reshape(*weights.shape, *[1] * (activation.ndim - 2)) * activation[:, None]


def _by_channel(run: Run[Any]) -> bool:
    return isinstance(run.technique, CAMByChannel) and run.technique.by_channel
