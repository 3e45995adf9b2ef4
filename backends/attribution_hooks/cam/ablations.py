"""What a score loses where a channel of a layer is zero: in closed form where the tail is linear, else by its tail."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attribution import layers
from attribution.attributor import Run
from attribution.running.execution import lost, out_of_memory
from attribution.scores.classes import ClassScore
from attribution_hooks.cam import closed_form
from attribution_hooks.cam.closed_form import flat
from attribution_hooks.cam.forwards import Seen
from attribution_hooks.cam.substitution import Substitution, alike, rounding
from attribution_hooks.chunks import in_parts, rows_at_once


def losses(run: Run[Any], seen: Seen) -> Tensor:
    """S − S with A[k] = 0, (N, T, D), in at least float32."""
    substitution = Substitution(run, seen.name)
    found = closed(run, seen, substitution)
    if found is None:
        found = one_by_one(run, seen, substitution)
        run.note(f"engine {seen.name}", "tail" if substitution.short else "whole forwards")
    else:
        run.note(f"engine {seen.name}", "closed form")
    return found


def thinkable(run: Run[Any], layer: str) -> bool:
    """Whether a closed form may be tried behind a layer, as far as that is known before the first forward."""
    asked, dtype = run.asked, run.inputs.dtype
    if not isinstance(asked, ClassScore) or asked.of_layer is not None or closed_form.hooked(run.model.modules()):
        return False
    if dtype not in (torch.float32, torch.float64) or run.execution.autocast:
        return False
    name, module = layers.find(run.model, layer)
    form = next((stop.form_of(name) for stop in layers.survey(run.model, run.inputs) if stop.module is module), None)
    return any(closed_form.reads(each, width) for each in run.model.modules() for width in (form or ())[1:])


def closed(run: Run[Any], seen: Seen, substitution: Substitution) -> Tensor | None:
    """W[c, k] · mean of A[k] for logits, where they are W · mean of A + b; ``None`` where they are found not to be.

    Every linear layer of the right size is tried. It is believed where it gives the logits of the inputs, and of each
    input with a half of its channels set to zero, of the first one also with that channel alone which counts most. The
    model says so itself: from the layer on, where that gives the logits of this call's forward again for what the layer
    gave, else as a whole. Any hook of the user's rules the form out.
    """
    (score, target), logits = run.settled, seen.matrix
    activation = seen.map.to(logits.device)
    exact = activation.dtype == logits.dtype and logits.dtype in (torch.float32, torch.float64)
    if (
        not isinstance(score, ClassScore)
        or not exact
        or run.execution.autocast
        or closed_form.hooked(run.model.modules())
    ):
        return None
    means, every = flat(activation).mean(2), torch.arange(len(logits), device=logits.device)
    for module in closed_form.linear(run.model.modules(), logits.shape[1], means.shape[1]):
        weight = module.weight.detach().flatten(1).to(logits.device)
        bias = None if module.bias is None else module.bias.detach().to(logits.device)
        within = closed_form.rounding(logits, module)
        if weight.dtype != logits.dtype or not alike(run, logits, F.linear(means, weight, bias), every, within):
            continue
        examples = torch.cat([every[:1], every])
        kept = closed_form.drawn(means[examples]) > 0
        kept[0] = True
        kept[0, (weight[target[0, 0]] * means[0]).abs().argmax()] = False
        values = torch.where(kept.view(*kept.shape, *[1] * (activation.ndim - 2)), activation[examples], 0.0)
        own = _behind(run, seen, substitution, values)
        if own is None:
            own = _whole(run, seen, substitution, values, examples)
        if not alike(run, own, F.linear(torch.where(kept, means[examples], 0.0), weight, bias), examples, within):
            continue
        if score.logits:
            return weight[target] * means[:, None]
        lost = [
            clean - score.score_of(row - (weight * mean).T)[:, columns].T
            for row, mean, columns, clean in zip(logits, means, target, _clean(run)[..., None], strict=True)
        ]
        return torch.stack(lost)
    return None


def _whole(run: Run[Any], seen: Seen, substitution: Substitution, values: Tensor, examples: Tensor) -> Tensor:
    """(B, K), by the whole model: the layer gives values (B, D, *places) for these examples (B,)."""
    parts = torch.arange(len(values), device=values.device).split(rows_at_once(run, len(values)))
    return torch.cat([substitution.whole(seen.own(values[some], examples[some]), examples[some]) for some in parts])


def _behind(run: Run[Any], seen: Seen, substitution: Substitution, values: Tensor) -> Tensor | None:
    """The same from the layer on, of the first example once and then of all; ``None`` where that is not the model's.

    It is, where what the layer gave leads to the logits of this call's forward once more.
    """
    if seen.trunk is None or not substitution.short:
        return None
    plain, every = seen.map.to(values.device), torch.arange(len(values) - 1, device=values.device)
    first = torch.cat([values[:1], plain[1:]])
    try:
        again, one, all_ = (
            substitution.behind(seen.trunk, seen.own(each, every), every) for each in (plain, first, values[1:])
        )
    except Exception as error:  # the model's own code, which may miss what modules before the layer do
        if lost(error) or out_of_memory(error):
            raise
        return None
    if not alike(run, seen.matrix, again, every, rounding(run, again)):
        return None
    return torch.cat([one[:1], all_])


def one_by_one(run: Run[Any], seen: Seen, substitution: Substitution) -> Tensor:
    """One row of a forward for each channel of each example, but for channels that are zero anyway."""
    score, target = run.settled
    activation, clean = seen.map, _clean(run)
    count, channels = activation.shape[:2]
    found = clean.new_zeros((count, channels, target.shape[1]))
    size = rows_at_once(run, channels)
    with run.progress(count * channels, "channel") as advance:
        for n in range(count):
            alive = activation[n].reshape(channels, -1).any(dim=1).nonzero()[:, 0]

            def work(part: Sequence[int], n: int = n, alive: Tensor = alive) -> None:
                some = alive[part[0] : part[-1] + 1]
                examples = torch.full((len(some),), n, device=activation.device)
                values = activation[examples]
                values[torch.arange(len(some), device=some.device), some] = 0
                matrix = substitution.of(seen.own(values, examples), n, seen.axis)
                scores = score.score_of(matrix)[:, target[n]].to(clean.dtype)
                found[n, some.to(found.device)] = clean[n] - scores

            for _ in range(channels - len(alive)):
                advance()
            size = in_parts(range(len(alive)), size, work, advance)
    run.note("channels_per_forward", size)
    return found.movedim(2, 1)


def _clean(run: Run[Any]) -> Tensor:
    """(N, T), in at least float32."""
    assert run.clean is not None  # beside the score that is settled
    return run.clean.to(torch.promote_types(run.clean.dtype, torch.float32))
