"""The layers that a technique takes when the user names none."""

from collections.abc import Sequence

from torch import Tensor, nn

from attribution.errors import LayerError
from attribution.layers.survey import Stop, survey

_MAX_POOLS = (nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.FractionalMaxPool2d)
_POOLS = (*_MAX_POOLS, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.LPPool2d)
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def grad_cam_layer(model: nn.Module, inputs: Tensor) -> str:
    """The last block before the classifier whose output is spatial and not a pool's.

    Of the model's children (a wrapper with one child that does the work is looked through) the last one with
    parameters and a spatial output is taken. A trunk that holds its pools itself (VGG, AlexNet, SqueezeNet) is
    opened: its last child with parameters is the block, unless that is a closing normalisation (DenseNet).

    Raises:
        LayerError: The features are tokens rather than a grid, or nothing is spatial.
    """
    stops = survey(model, inputs)
    block = _last_block(model, stops, "", inputs)
    if block is None or _tokens_follow(block, stops, inputs):
        raise LayerError(
            f"{type(model).__name__} ends in tokens or vectors, not in a grid of features: there is no default layer. "
            "Name one whose output is (N, D, h, w), or tokens on a grid (see GradCAM's tokens): layers=('…',)"
        )
    return block.name


def activation_layers(model: nn.Module, inputs: Tensor) -> tuple[str, ...]:
    """The max-pools of the main path where there are at least three, else the last module of each resolution.

    A pool is on the main path if it makes the map smaller (the stride-1 pools of Inception blocks are not). What
    lies inside a block that leaves the resolution is no layer of that resolution: ResNet-50's 56-pixel layer is
    ``layer1``, not the first convolution of ``layer2``.

    Raises:
        LayerError: No layer has a spatial output.
    """
    stops = survey(model, inputs)
    pools = [stop for stop in stops if isinstance(stop.module, _MAX_POOLS) and stop.calls == 1 and _shrinks(stop)]
    if len(pools) >= 3:
        return tuple(stop.name for stop in pools)
    last: dict[tuple[int, ...], Stop] = {}
    for stop in stops:
        if _spatial(stop, inputs) and stop.calls == 1 and stop.shape and not _in_passing(stop, stops):
            last[stop.shape[2:]] = stop
    if not last:
        raise LayerError(f"no layer of {type(model).__name__} has a spatial output; name layers: layers=('…',)")
    return tuple(stop.name for stop in sorted(last.values(), key=lambda stop: stop.order))


def _in_passing(stop: Stop, stops: Sequence[Stop]) -> bool:
    """Whether the module lies in a block (no plain sequence) that ends at another resolution."""
    blocks = [other for other in stops if stop.name.startswith(f"{other.name}.")]
    return any(
        not isinstance(block.module, nn.Sequential) and block.shape is not None and block.shape[2:] != stop.shape[2:]
        for block in blocks
        if stop.shape is not None
    )


def _last_block(scope: nn.Module, stops: Sequence[Stop], prefix: str, inputs: Tensor) -> Stop | None:
    children = _children(scope, stops, prefix)
    blocks = [stop for stop in children if stop.parametrised and stop.calls == 1]
    for stop in reversed(blocks):
        if _spatial(stop, inputs):
            return _opened(stop, stops, inputs)
    for stop in reversed(blocks):
        inner = _last_block(stop.module, stops, f"{stop.name}.", inputs)
        if inner is not None:
            return inner
    return None


def _children(scope: nn.Module, stops: Sequence[Stop], prefix: str) -> list[Stop]:
    """The direct children that ran, by their end; containers that never run (ModuleList) are looked through."""
    ran = {stop.name: stop for stop in stops}
    found: list[Stop] = []
    for name, child in scope.named_children():
        if prefix + name in ran:
            found.append(ran[prefix + name])
        else:
            found += _children(child, stops, f"{prefix}{name}.")
    return sorted(found, key=lambda stop: stop.order)


def _opened(trunk: Stop, stops: Sequence[Stop], inputs: Tensor) -> Stop:
    children = _children(trunk.module, stops, f"{trunk.name}.")
    if not any(isinstance(stop.module, _POOLS) and _shrinks(stop) for stop in children):
        return trunk
    blocks = [stop for stop in children if stop.parametrised and _spatial(stop, inputs)]
    if not blocks or (isinstance(blocks[-1].module, _NORMS) and blocks[-1] is children[-1]):
        return trunk
    return blocks[-1]


def _tokens_follow(block: Stop, stops: Sequence[Stop], inputs: Tensor) -> bool:
    return any(
        stop.order > block.order and stop.parametrised and (_sequence(stop) or _channels_last(stop, inputs))
        for stop in stops
    )


def _sequence(stop: Stop) -> bool:
    """(N, tokens, D)."""
    return stop.shape is not None and len(stop.shape) == 3 and min(stop.shape[1:]) > 1


def _channels_last(stop: Stop, inputs: Tensor) -> bool:
    """(N, h, w, D) rather than (N, D, h, w): axes 1 and 2 have the aspect of the image, axes 2 and 3 have not."""
    if stop.shape is None or len(stop.shape) != 4 or 0 in stop.shape or stop.shape[1] * stop.shape[2] == 1:
        return False
    return _stretch(stop.shape[1:3], inputs) < 1.2 and _stretch(stop.shape[2:4], inputs) > 1.5


def _stretch(size: tuple[int, ...], inputs: Tensor) -> float:
    """How much wider or narrower than the image a grid is, ≥ 1."""
    (height, width), (h, w) = inputs.shape[2:], size
    return max(h * width / (w * height), w * height / (h * width))


def _shrinks(stop: Stop) -> bool:
    return bool(
        stop.shape
        and stop.input_shape
        and len(stop.shape) == 4
        and stop.shape[2] * stop.shape[3] < stop.input_shape[2] * stop.input_shape[3]
    )


def _spatial(stop: Stop, inputs: Tensor) -> bool:
    """(N, D, h, w) with h·w > 1, no larger than the image and of roughly its aspect."""
    if stop.shape is None or len(stop.shape) != 4 or _channels_last(stop, inputs):
        return False
    (height, width), (h, w) = inputs.shape[2:], stop.shape[2:]
    return h * w > 1 and h <= height and w <= width and _stretch((h, w), inputs) <= 3
