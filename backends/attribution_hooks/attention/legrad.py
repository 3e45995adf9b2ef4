"""LeGrad in one forward and one backward for each target: the model's last layers see all blocks' outputs at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.agreement import relative_tolerance
from attribution.attributor import Attributor, Run
from attribution.errors import LayerError, ModelError
from attribution.inputs.inputs import Inputs
from attribution.isolation.torch_modes import devices_of, note_random
from attribution.isolation.undo import Undo
from attribution.technique import Maps
from attribution.techniques.attention.legrad import LeGrad
from attribution_hooks.attention.weights import bytes_of, fused, gradients, read, weights


class HooksLeGrad(Attributor[LeGrad]):
    """`LeGrad` with the outputs of the blocks as rows of one batch behind the last block.

    The next block is given each output without its graph, so that a layer's score depends on its own attention alone
    and the gradient of all scores' sum has every layer's. The rows of the last block must have the scores of the clean
    inputs: that proves, in each call, that the last layers take the rows one by one.
    """

    technique_type: ClassVar[type[LeGrad]] = LeGrad
    backend: ClassVar[str] = "hooks"

    def image_bytes(self, model: nn.Module, technique: LeGrad, inputs: Inputs) -> int:
        """The forward's graph with all weights, and one target's gradients."""
        weighed = bytes_of(model, technique, inputs, heads=True, copies=3)
        return layers.graph_bytes(model, inputs) + 2 * layers.peak_bytes(model, inputs) + weighed

    def compute(self, run: Run[LeGrad]) -> Maps:
        """(N, T, h, w) of the input."""
        blocks = run.technique.blocks(run.model, run.inputs)
        restart = note_random(Undo(), devices_of(run.model, run.inputs.first))
        with torch.no_grad():
            clean = run.scores(run.forward(run.inputs))
        restart()  # a model that draws shall draw the same again
        maps, reading = list[Tensor](), read(run)
        with torch.enable_grad(), weights(run, None) as found, _side_by_side(run, blocks):
            examples = torch.arange(len(run.inputs), device=run.inputs.device).repeat(len(blocks))
            try:
                scores = run.scores(run.forward(run.inputs), examples).unflatten(0, (len(blocks), -1))
            except ModelError as error:
                if isinstance(error.__cause__, RuntimeError | IndexError | ValueError):
                    raise _unlike(blocks[-1]) from error
                raise
            found.done, kept = True, found.values()
            off = (scores[-1] - clean).abs().max()
            if off > relative_tolerance(clean.dtype) * scores.detach().abs().max():
                raise _unlike(blocks[-1])
            columns = scores.unbind(2)
            for t, column in enumerate(columns):
                slopes = gradients(column, kept, keep=t + 1 < len(columns))
                with torch.no_grad():
                    rows = [fused(found.by_head(g).relu(), run.technique).mean(dim=1) for g in slopes]
                    maps.append(torch.stack(rows).mean(dim=0))
        return {run.inputs.key(run.inputs.explained[0]): reading.placed(torch.stack(maps, dim=1))}


@contextmanager
def _side_by_side(run: Run[Any], blocks: list[str]) -> Iterator[None]:
    """Give the model's next layers each block's output without its graph, and those behind the last one all outputs."""
    kept: list[Tensor] = []
    owner, handles = threading.get_ident(), []
    alone = {stop.module: _shape(stop.output) for stop in layers.survey(run.model, run.inputs)}

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if threading.get_ident() != owner:
            return None
        keys = () if isinstance(output, Tensor) else (0,)
        tokens = layers.item(output, keys)
        if not isinstance(tensor := tokens, Tensor):
            return None
        axis = layers.examples_axis(blocks[len(kept)], tensor.shape, len(run.inputs), alone[module])
        kept.append(tensor)
        last = len(kept) == len(blocks)
        return layers.replaced(output, keys, torch.cat(kept, dim=axis) if last else tensor.detach())

    try:
        for module in map(run.model.get_submodule, blocks):  # no comprehension: each is removed if the next fails
            handles += [module.register_forward_hook(hook)]
        yield
    finally:
        for handle in handles:
            handle.remove()


def _shape(form: Any) -> tuple[int, ...] | None:
    first = form[0] if isinstance(form, list) and form else form
    return first.shape if isinstance(first, layers.Form) else None


def _unlike(block: str) -> LayerError:
    return LayerError(
        f"what follows {block!r} does not take the outputs of several blocks one by one, as rows of a batch, so that "
        "they have no scores of their own. Is it the last block? If so, use GradientAttention"
    )
