"""Occlusion sensitivity by Captum's ``Occlusion``."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import reduce
from math import gcd
from typing import ClassVar

import torch
from captum.attr import Occlusion as CaptumOcclusionMethod
from torch import Tensor

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.inputs.inputs import Inputs
from attribution.running.execution import CPU_WINDOWS, out_of_memory
from attribution.technique import Maps
from attribution.techniques import Occlusion
from attribution_captum.layer import typed
from attribution_captum.windowed import Windowed

_COPIES = 6
"""Full-size copies of a batch that Captum holds beside the activations: masks, masked images, sums."""


class CaptumOcclusion(Attributor[Occlusion]):
    """`Occlusion` by one call of Captum's class per target; Captum folds in float32 whatever it is given.

    Captum gets the covered inputs as a tuple, and the examples' places as a further argument, which it repeats with the
    windows itself.
    """

    technique_type: ClassVar[type[Occlusion]] = Occlusion
    backend: ClassVar[str] = "captum"
    computes_in: ClassVar[torch.dtype | None] = torch.float32

    def compute(self, run: Run[Occlusion]) -> Maps:
        """(N, T, *places) of each covered input, on the lattice that Captum lays itself."""
        parts = [Windowed.of(run, name) for name in run.technique.covered(run.inputs)]
        chunk = _chunk(run, parts)
        run.note("engine", "captum.Occlusion")
        run.note("windows", sum(len(part.lattice) for part in parts))
        maps: list[tuple[Tensor, ...]] = []
        forwards = 1 + -(-sum(part.laid for part in parts) // chunk)  # of each target
        advances: list[Callable[[], None]] = []
        fits = [chunk * len(run.inputs)]
        with torch.no_grad(), typed(), ExitStack() as stack:

            def score(*given: Tensor) -> Tensor:
                covered, examples = given[:-1], given[-1]
                beside = run.inputs if run.inputs.plain else run.inputs[examples]
                pairs = list(zip(parts, covered, strict=True))
                shown = beside.replaced({part.name: part.whole(x, examples) for part, x in pairs})
                chosen = [rows for part, x in pairs if (rows := part.asked(x)) is not None]
                asked = torch.stack(chosen).all(dim=0) if chosen else None
                scores = _scores(run, shown, examples, asked, fits)
                if not advances:  # how many targets there are shows in the first forward
                    advances.append(stack.enter_context(run.progress(forwards * scores.shape[1], "forward")))
                advances[0]()
                return scores[:, len(maps)]

            method = CaptumOcclusionMethod(score)
            while run.target is None or len(maps) < run.target.shape[1]:
                found = method.attribute(
                    tuple(part.given for part in parts),
                    sliding_window_shapes=tuple(part.window for part in parts),
                    strides=tuple(part.stride for part in parts),
                    baselines=tuple(part.cover for part in parts),
                    additional_forward_args=(torch.arange(len(run.inputs), device=run.inputs.device),),
                    perturbations_per_eval=chunk,
                )
                maps.append(tuple(part.map(each) for part, each in zip(parts, found, strict=True)))
        run.note("windows_per_forward", max(1, fits[0] // len(run.inputs)))
        return {
            run.inputs.key(part.name): torch.stack(each, dim=1)
            for part, each in zip(parts, zip(*maps, strict=True), strict=True)
        }


def _chunk(run: Run[Occlusion], parts: Sequence[Windowed]) -> int:
    """Windows per forward.

    Captum makes the masks of the inputs that a batch does not cover on the host. So on another device a batch covers
    one input: its size divides the numbers of windows before those of the last input.
    """
    copies = _COPIES * sum(part.given[0].nbytes for part in parts)
    each = len(run.inputs) * (copies + layers.peak_bytes(run.model, run.inputs))
    host = run.inputs.device.type == "cpu"
    most = max(1, CPU_WINDOWS // len(run.inputs)) if host else None
    laid = [part.laid for part in parts]
    chunk = run.execution.chunk(each, sum(laid), most=most)
    shared = reduce(gcd, laid[:-1], 0)
    if host or not shared:
        return chunk
    return next(size for size in range(min(chunk, shared), 0, -1) if shared % size == 0)


def _scores(run: Run[Occlusion], shown: Inputs, examples: Tensor, asked: Tensor | None, fits: list[int]) -> Tensor:
    """(B, T), of as many examples at once as ``fits`` says; where memory runs out it is halved for good.

    Rows that are not asked for keep the clean scores, so that their windows weigh nothing.
    """
    if asked is not None and run.clean is not None and not bool(asked.all()):
        scores = run.clean[examples]
        if bool(asked.any()):
            scores[asked] = _scores(run, shown[asked], examples[asked], None, fits)
        return scores
    parts: list[Tensor] = []
    first = 0
    while first < len(examples):
        rows = slice(first, first + fits[0])
        scores_of = _tried(run, shown[rows], examples[rows])
        if scores_of is None:
            fits[0] = len(examples[rows]) // 2
        else:
            parts.append(scores_of)
            first += len(scores_of)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _tried(run: Run[Occlusion], shown: Inputs, examples: Tensor) -> Tensor | None:
    """``None`` where they do not fit; the failure's traceback, which holds what did, is gone when this returns."""
    try:
        return run.scores(run.forward(shown, examples), examples)
    except (RuntimeError, MemoryError) as error:
        if len(examples) == 1 or not out_of_memory(error):
            raise
        return None
