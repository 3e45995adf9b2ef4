"""The layers that a technique takes when the user names none."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from attribution.errors import LayerError
from attribution.inputs.inputs import Inputs, as_inputs
from attribution.layers.axes import channels_last
from attribution.layers.grids import token_grids
from attribution.layers.trace import Stop, Survey, missing, survey
from attribution.layers.trunk import NORMS, Trunk, shrinks

Tokens = str | tuple[int, ...]
"""How tokens lie, as Grad-CAM is told."""
_MAX_POOLS = (nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.FractionalMaxPool2d)


def grad_cam_layer(model: nn.Module, inputs: Tensor | Inputs) -> str:
    """The last block before the classifier whose output is spatial and not a pool's: see `Trunk.end`.

    Where there is none, the first normalisation of the last block of tokens, as of a vision transformer.

    Raises:
        LayerError: Nothing is spatial, and no block gives tokens on a grid.
        ModelError: The model fails on these inputs before there is such a block.
    """
    return grad_cam_default(model, inputs)[0]


def grad_cam_default(model: nn.Module, inputs: Tensor | Inputs) -> tuple[str, Tokens | None]:
    """The layer of `grad_cam_layer`, and how its tokens lie: ``(leading, h, w)``, ``"channels_last"``, or ``None``.

    Raises:
        LayerError: See `grad_cam_layer`, as of errors of the model.
    """
    inputs = as_inputs(inputs)
    stops = survey(model, inputs)
    if "grad_cam" not in stops.chosen:
        end = Trunk(model, stops, inputs).end()
        found = _tokens_of_last_block(model, stops, inputs) if end is None else (end.name, None)
        stops.chosen["grad_cam"] = (found[0],)
        stops.tokens = found[1]
    return stops.chosen["grad_cam"][0], stops.tokens


def activation_layers(model: nn.Module, inputs: Tensor | Inputs) -> tuple[str, ...]:
    """The max-pools of the main path where there are at least three, else the last module of each resolution.

    Nothing after the block that Grad-CAM takes is among them, but the pools and activations that follow it at once.
    A pool is on the main path if it makes the map smaller (the stride-1 pools of Inception blocks are not). What
    lies inside a block that leaves the resolution is no layer of that resolution: ResNet-50's 56-pixel layer is
    ``layer1``, not the first convolution of ``layer2``. Of inputs that are no images, the last leaf with parameters of
    each size of a grid.

    Raises:
        LayerError: No layer has a spatial output.
        ModelError: The model fails on these inputs before any such layer.
    """
    inputs = as_inputs(inputs)
    stops = survey(model, inputs)
    if "activations" not in stops.chosen:
        places = tuple(inputs.shape[2:])
        images = len(places) == 2
        found = _of_each_resolution(Trunk(model, stops, inputs)) if images else _of_each_size(stops, places)
        if not found:
            candidate = _candidate(stops, places) if images else _first(stops)
            text = f"no layer of {type(model).__name__} has a spatial output; name layers"
            text += f": layers=({candidate[0]!r},)" if candidate else " (`attribution layers` lists them)"
            several = _several_runs(model, stops, inputs) if images else None
            raise missing(model, inputs, several or LayerError(text))
        stops.chosen["activations"] = tuple(stop.name for stop in found)
    return stops.chosen["activations"]


def _of_each_resolution(trunk: Trunk) -> list[Stop]:
    grids, end = _grids(trunk), trunk.end()
    last = end or next((stop for stop in reversed(grids) if stop.parametrised), None)
    stops = [stop for stop in grids if last and stop.order <= last.order] + _following(last, grids)
    stops = [stop for stop in stops if stop.calls == 1 and not _in_passing(stop, end, trunk)]
    pools = [stop for stop in stops if isinstance(stop.module, _MAX_POOLS) and shrinks(stop)]
    if len(pools) >= 3:
        return pools
    of_each: dict[tuple[int, ...], Stop] = {}
    for stop in stops:
        if stop.shape and not (stop.shape[2:] in of_each and trunk.narrow(stop)):
            of_each[stop.shape[2:]] = stop
    return sorted(of_each.values(), key=lambda stop: stop.order)


def _of_each_size(stops: Survey, places: tuple[int, ...]) -> list[Stop]:
    """For series and volumes."""
    of_each: dict[tuple[int, ...], Stop] = {}
    for stop in stops:
        grid = stop.shape is not None and len(stop.shape) == 2 + len(places) > 2 and math.prod(stop.shape[2:]) > 1
        if grid and stop.shape and stop.leaf and stop.parametrised and stop.calls == 1:
            of_each[stop.shape[2:]] = stop
    return sorted(of_each.values(), key=lambda stop: stop.order)


def _first(stops: Survey) -> tuple[str] | None:
    """The first leaf with parameters that gives a tensor."""
    return next(((stop.name,) for stop in stops if stop.leaf and stop.parametrised and stop.shape), None)


def _grids(trunk: Trunk) -> list[Stop]:
    """Layers with parameters that make grids of something, and those without that take such a grid.

    Neither a table of positions, which is made of nothing, nor a map of attention, which is made of tokens.
    """
    found: list[Stop] = []
    shapes = set()
    for stop in trunk.stops:
        if trunk.spatial(stop) and stop.input_shape and (stop.parametrised or stop.input_shape in shapes):
            shapes.add(stop.shape)
            found.append(stop)
    return found


def _following(last: Stop | None, grids: Sequence[Stop]) -> list[Stop]:
    """The pools and activations that take a block's output, one after the other; nothing that magnifies it."""
    found: list[Stop] = []
    for stop in grids:
        before = found[-1] if found else last
        if before is None or stop.order <= before.order or stop.parametrised or stop.input_shape != before.shape:
            continue
        if math.prod((stop.shape or ())[2:]) <= math.prod((before.shape or ())[2:]):
            found.append(stop)
    return found


def _in_passing(stop: Stop, end: Stop | None, trunk: Trunk) -> bool:
    """Whether the module lies in a block, no plain sequence and no whole network, that ends in another grid."""
    for block in trunk.stops:
        if not stop.name.startswith(f"{block.name}.") or isinstance(block.module, nn.Sequential) or block.shape is None:
            continue
        network = end is not None and end.name.startswith(f"{block.name}.")
        if not network and block.shape[2:] != (stop.shape or ())[2:] and (trunk.spatial(block) or trunk.tokens(block)):
            return True
    return False


def _tokens_of_last_block(model: nn.Module, stops: Survey, inputs: Inputs) -> tuple[str, Tokens]:
    if repeated := _several_runs(model, stops, inputs):
        raise missing(model, inputs, repeated)
    candidate = None if stops.failure else _candidate(stops, tuple(inputs.shape[2:]))
    if candidate is None:
        raise missing(model, inputs, LayerError(
            f"{type(model).__name__} gives neither a grid of features nor tokens on one: there is no default layer. "
            "Name one whose output is (N, D, h, w), or tokens on a grid (see GradCAM's tokens)"
        ))  # fmt: skip
    return candidate


def _several_runs(model: nn.Module, stops: Survey, inputs: Inputs) -> LayerError | None:
    """The error for a model whose trunk runs several times, as for an image and its mirror image."""
    end = Trunk(model, stops, inputs).repeated()
    if end is None:
        return None
    return LayerError(
        f"every grid of features that could be the default layer of {type(model).__name__} runs several times in one "
        f"forward: there is no default layer. Name one with its run, from #0 to #{end.calls - 1}: "
        f"layers=({f'{end.name}#0'!r},)"
    )


def _candidate(stops: Survey, image: tuple[int, ...]) -> tuple[str, Tokens] | None:
    """The first normalisation of the last block of tokens, as Grad-CAM is asked for it; without one, the block.

    Where the classes are read off the class token, no other token of the last block's output has a gradient.
    """
    around = {child: stop.module for stop in stops for child in stop.module.children()}
    types = [type(stop.module) for stop in stops]
    norms: dict[nn.Module, tuple[str, Tokens]] = {}
    block: tuple[str, Tokens] | None = None
    shapes = [stop.shape for stop in stops if stop.parametrised and stop.shape]
    for stop in stops:
        tokens, outer = _tokens(stops, stop, image, shapes), around.get(stop.module)
        if tokens is None or stop.calls > 1:
            continue
        if isinstance(stop.module, NORMS) or (stop.leaf and "Norm" in type(stop.module).__name__):
            if outer is None or types.count(type(outer)) < 2:
                continue
            if not any(outer in known.modules() for known in norms):  # of a part of a block that has one itself
                norms[outer] = stop.name, tokens
        elif not stop.leaf and types.count(type(stop.module)) > 1:
            block = (stop.name, tokens)
    return [*norms.values()][-1] if norms else block


def _tokens(stops: Survey, stop: Stop, image: tuple[int, ...], shapes: Sequence[tuple[int, ...]]) -> Tokens | None:
    if channels_last(stops, stop, image):
        return "channels_last"
    shape = stop.shape or ()
    grids = token_grids(shape[1], image, shapes) if len(shape) == 3 and shape[0] == 1 else []
    return grids[0] if grids else None
