"""Scores of inputs that are seen through the channels of a layer."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from attribution.attributor import Run
from attribution.lowered.forwards import Forward, forwarding
from attribution.techniques import ScoreCAM
from attribution_hooks.cam.forwards import Seen
from attribution_hooks.chunks import in_parts, rows_at_once
from attribution_hooks.covers import beside

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def scores(run: Run[ScoreCAM], seen: Seen) -> Tensor:
    """(N, T, D), in at least float32: of x · H[k], all targets from the same forwards.

    Channels that are constant all give the mask 0: of each example one of them goes through the model.
    """
    name = run.technique.seen_through(seen.name, seen.grid, run.inputs)
    x, activation, target = run.inputs.values[name], seen.map.to(run.inputs.device), run.settled[1]
    count, channels = activation.shape[:2]
    size = tuple(run.inputs.places(name))
    varied = activation.flatten(2).amax(2) > activation.flatten(2).amin(2)
    every, first = torch.arange(count, device=x.device), (~varied).to(torch.uint8).argmax(1)
    shown_once = varied.clone()
    shown_once[every, first] = True  # the first constant channel; where there is none, the very first
    asked = shown_once.nonzero()
    wide = torch.promote_types(x.dtype, torch.float32)

    def of(forward: Forward) -> Tensor:
        found = torch.zeros((count, channels, target.shape[1]), dtype=wide, device=x.device)

        def work(part: Sequence[int]) -> None:
            examples, some = asked[part[0] : part[-1] + 1].unbind(1)
            masks = _masks(activation[examples, some].to(wide), size).to(x.dtype)
            shown = x[examples] * masks[:, None]
            found[examples, some] = forward(beside(run, name, shown, examples), examples).to(found)

        with run.progress(len(asked), "channel") as advance:
            run.note("channels_per_forward", in_parts(range(len(asked)), rows_at_once(run, len(asked)), work, advance))
        return found

    found = forwarding(run, seen.matrix, len(asked), of)
    run.note(f"masks {seen.name}", len(asked))
    return torch.where(varied[..., None], found, found[every, first][:, None]).movedim(2, 1)


def _masks(channels: Tensor, size: tuple[int, ...]) -> Tensor:
    """(B, *places) of the input from (B, *places) of the layer, from 0 to 1; 0 of constant ones."""
    up = F.interpolate(channels[:, None], size=size, mode=_MODES[len(size)], align_corners=False)[:, 0]
    flat = up.flatten(1)
    low, high = (edge.view(-1, *[1] * len(size)) for edge in (flat.amin(1), flat.amax(1)))
    reach = high - low
    return torch.where(reach > 0, (up - low) / reach, 0.0)
