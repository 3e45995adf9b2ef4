"""Where a network's features end: the last block before whatever reads them."""

import itertools
import math
from collections.abc import Iterable, Iterator

from torch import nn

from attribution.inputs.inputs import Inputs
from attribution.layers.axes import channels_last
from attribution.layers.grids import flat, magnified, sequence, spatial
from attribution.layers.trace import Stop, Survey

POOLS = (
    nn.MaxPool2d,
    nn.AdaptiveMaxPool2d,
    nn.FractionalMaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.LPPool2d,
)
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)

_COARSE = 0.2
"""Part of the parameters on grids that the coarsest ones must hold; a detector's extra levels hold less."""

_LATE = 0.5
"""Part of the parameters that may come after the last block, such as an attention pool's."""

_FAR_FEWER, _LITTLE = 16, 0.01
"""A map with so many times fewer channels than features on its grid, of so little weight, tells where, not what."""


class Trunk:
    """The order, the sizes and the weights of the modules that ran.

    Attributes:
        stops: Of one image.
        image: Its height and width.
    """

    def __init__(self, model: nn.Module, stops: Survey, inputs: Inputs) -> None:
        self._model = model
        self.stops = stops
        self.image = tuple(inputs.shape[2:])
        self._ran = {stop.module: stop for stop in stops}
        self._named = {stop.name: stop for stop in stops}
        self._weights: dict[int, int] = {}
        self._weigh(model, None, set())
        weighed = [stop for stop in stops if self._weights.get(stop.order)]
        inner = [stop for stop in weighed if not (flat(stop.input_shape) or flat(stop.shape))]
        self._features = [stop for stop in inner if not magnified(stop.shape, self.image)]
        self._maps = [stop for stop in self._features if self.spatial(stop)]
        self._grids = set(self._maps)
        self._inner: dict[Stop, list[Stop]] = {}
        self._coarse = self._coarsest()
        self._logits = self._maps_of_logits(weighed)
        self._widest = self._channels_of_each_grid()
        self._once = self._wide = True

    def spatial(self, stop: Stop) -> bool:
        """Whether the output is a grid (1, D, h, w)."""
        return spatial(stop.shape, self.image) and not channels_last(self.stops, stop, self.image)

    def tokens(self, stop: Stop) -> bool:
        """Whether the output is (N, tokens, D) or (N, h, w, D)."""
        return sequence(stop.shape) or channels_last(self.stops, stop, self.image)

    def end(self) -> Stop | None:
        """The last block whose output is a grid; ``None`` where there is none, or most parameters come after it.

        Children are looked at from the end, and into each before its earlier siblings. What goes back to finer grids
        once the coarsest was reached (decoders, feature pyramids, box heads) is left out, and so are maps of attention
        and what makes maps of classes, unless there is nothing else.
        """
        for wide in (True, False):
            self._wide = wide
            for strict in (True, False):
                if found := self._last(self._model, strict):
                    return found
        self._logits = set()
        return self._last(self._model, strict=False)

    def repeated(self) -> Stop | None:
        """The end of a trunk that runs several times, as for an image and its mirror image; else ``None``."""
        self._once = False
        end = self.end()
        self._once = True
        return end if end and end.calls > 1 else None

    def narrow(self, stop: Stop) -> bool:
        """Whether it is a grid of one channel, or of hardly any beside the features on it, as maps of attention are."""
        if not self.spatial(stop) or stop.shape is None:
            return False
        if stop.shape[1] == 1:
            return True
        few = _FAR_FEWER * stop.shape[1] <= self._widest.get(stop.shape[2:], 0)
        return few and self._mass(self._inside(stop)) < _LITTLE * self._mass(self._features)

    def children(self, scope: nn.Module) -> list[Stop]:
        """The direct children that ran, by their end; containers that never run (ModuleList) are looked through."""
        found: list[Stop] = []
        for child in scope.children():
            found += [self._ran[child]] if child in self._ran else self.children(child)
        return sorted(found, key=lambda stop: stop.order)

    def _last(self, scope: nn.Module, strict: bool) -> Stop | None:
        for child in self._from_the_end(scope):
            if found := self._within(child, strict):
                return found
        return None

    def _from_the_end(self, scope: nn.Module) -> list[Stop]:
        """In a model that gives maps of classes, encoders come first and what makes those maps comes last."""
        children = [
            stop for stop in reversed(self.children(scope)) if stop.parametrised and (stop.calls == 1 or not self._once)
        ]
        if not self._logits:
            return children
        return sorted(children, key=lambda stop: 2 * self._makes_logits(stop) - self._encodes(stop))

    def _within(self, stop: Stop, strict: bool) -> Stop | None:
        if stop.module in self._logits:
            return None
        if self._wide and self.narrow(stop):
            most = self._mass(self._inside(stop)) > _LATE * self._mass(self._features)
            return self._last(stop.module, strict) if most else None
        if self._is_coarse(stop) and not self._makes_logits(stop):
            return None if self._late(stop) else self._opened(stop)
        if (strict and self._goes_back(stop)) or self._of_tokens(stop):
            return None
        return self._last(stop.module, strict)

    def _is_coarse(self, stop: Stop) -> bool:
        """Whether it is on the coarsest grid; also a coarser one, but for the extra levels of a detector."""
        classifies = any(len(shape) > 1 and shape[0] == 1 for shape in self.stops.outputs)
        return self.spatial(stop) and (_area(stop) <= self._coarse if classifies else _area(stop) == self._coarse)

    def _opened(self, block: Stop) -> Stop:
        """A trunk that holds its pools itself (VGG) ends in its last child with parameters, not after its last pool.

        A pool at the beginning is a block's (U-Net), and a closing normalisation belongs to the trunk (DenseNet).
        """
        children = self.children(block.module)
        if not (isinstance(block.module, nn.Sequential) or self._encodes(block)):
            return block
        if not any(isinstance(stop.module, POOLS) and shrinks(stop) for stop in children[1:]):
            return block
        blocks = [stop for stop in children if stop.parametrised and self.spatial(stop)]
        if not blocks or (isinstance(blocks[-1].module, NORMS) and blocks[-1] is children[-1]):
            return block
        return blocks[-1]

    def _late(self, stop: Stop) -> bool:
        """Whether most parameters come after it, or more for tokens than there were for grids.

        Finer grids, as of a decoder, are not counted, nor what makes maps of classes. A lone convolution before tokens
        is their embedding.
        """
        after = [other for other in self._features if other.order > stop.order]
        tokens = self._mass(other for other in after if other not in self._grids)
        coarse = 0 if self._logits else self._mass(s for s in after if s in self._grids and _area(s) <= self._coarse)
        if tokens and isinstance(stop.module, nn.Conv2d):
            return True
        before = self._mass(other for other in self._maps if other.order <= stop.order)
        return tokens > before or tokens + coarse > _LATE * self._mass(self._features)

    def _of_tokens(self, stop: Stop) -> bool:
        """Whether it gives tokens and holds more parameters for them than for grids."""
        if not self.tokens(stop):
            return False
        return self._mass(self._inside(stop)) > 2 * self._mass(self._grids_in(stop))

    def _goes_back(self, stop: Stop) -> bool:
        """Whether it works on finer grids after an earlier module has reached the coarsest."""
        inside = self._grids_in(stop)
        first = min((other.order for other in inside), default=0)
        reached = any(other.order < first and _area(other) <= self._coarse for other in self._maps)
        return reached and any(_area(other) > self._coarse for other in inside)

    def _makes_logits(self, stop: Stop) -> bool:
        return any(module in self._logits for module in stop.module.modules())

    def _encodes(self, stop: Stop) -> bool:
        """Whether the grid becomes a quarter as wide in it, and the coarsest."""
        areas = [_area(other) for other in self._grids_in(stop)]
        return bool(areas) and min(areas) <= self._coarse and max(areas) >= 16 * self._coarse

    def _grids_in(self, stop: Stop) -> list[Stop]:
        if stop not in self._inner:
            self._inner[stop] = [other for other in self._inside(stop) if other in self._grids]
        return self._inner[stop]

    def _inside(self, stop: Stop) -> Iterator[Stop]:
        return (self._ran[module] for module in stop.module.modules() if module in self._ran)

    def _coarsest(self) -> int:
        """Places of the coarsest grids that hold a fair part of the parameters, on the way down.

        A detour over a coarser grid inside a block counts as the block's.
        """
        held: dict[int, int] = {}
        least = math.inf
        for stop in self._maps:
            area = self._ends_at(stop)
            if area <= least:
                least = area
                held[area] = held.get(area, 0) + self._weights[stop.order]
        for area in sorted(held):
            if sum(held[other] for other in held if other <= area) >= _COARSE * sum(held.values()):
                return area
        return 0

    def _ends_at(self, stop: Stop) -> int:
        """Places of the finest grid that a block around it gives, unless the block came down to it as networks do."""
        areas, path = [_area(stop)], stop.name
        while path := path.rpartition(".")[0]:
            block = self._named.get(path)
            if block is not None and self.spatial(block) and not self._falls(block, stop):
                areas.append(_area(block))
        return max(areas)

    def _falls(self, block: Stop, stop: Stop) -> bool:
        """Whether a grid four times as wide comes before this one inside a block."""
        return any(other.order < stop.order and _area(other) >= 16 * _area(stop) for other in self._grids_in(block))

    def _maps_of_logits(self, weighed: list[Stop]) -> set[nn.Module]:
        """Layers that give one map for each class, which nothing reads; none for classes that come from vectors."""
        followed = dict(itertools.pairwise(weighed))
        found: set[nn.Module] = set()
        for shape in self.stops.outputs:
            makers = [stop for stop in weighed if len(shape) > 1 and _channels(stop) == shape[1]]
            if makers and not (len(shape) == 2 and flat(makers[-1].shape)):
                found |= {s.module for s in makers if s.leaf and self.spatial(s) and not _read(s, followed.get(s))}
        return found

    def _channels_of_each_grid(self) -> dict[tuple[int, ...], int]:
        """The most channels that features have on a grid."""
        most: dict[tuple[int, ...], int] = {}
        for stop in self._maps:
            if stop.shape is not None and stop.module not in self._logits:
                most[stop.shape[2:]] = max(most.get(stop.shape[2:], 0), stop.shape[1])
        return most

    def _weigh(self, module: nn.Module, around: Stop | None, seen: set[int]) -> None:
        """Count each parameter once, for the module that ran with it.

        Attention uses the parameters of modules in it that it does not run. Elsewhere such modules are idle.
        """
        owner = self._ran.get(module)
        if owner is None and around is not None and (sequence(around.input_shape) or self.tokens(around)):
            owner = around
        for parameter in module.parameters(recurse=False):
            if owner is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                self._weights[owner.order] = self._weights.get(owner.order, 0) + parameter.numel()
        for child in module.children():
            self._weigh(child, owner, seen)

    def _mass(self, stops: Iterable[Stop]) -> int:
        return sum(self._weights.get(stop.order, 0) for stop in stops)


def shrinks(stop: Stop) -> bool:
    """Whether the output is a smaller grid than the input."""
    if stop.shape is None or stop.input_shape is None or len(stop.shape) != 4 or len(stop.input_shape) != 4:
        return False
    return stop.shape[2] * stop.shape[3] < stop.input_shape[2] * stop.input_shape[3]


def _area(stop: Stop) -> int:
    return stop.shape[2] * stop.shape[3] if stop.shape else 0


def _channels(stop: Stop) -> int:
    """D of (N, D, h, w) and of (N, 1, 1, D)."""
    shape = stop.shape or (0, 0)
    return max(shape[1], shape[-1]) if flat(shape) else shape[1]


def _read(stop: Stop, following: Stop | None) -> bool:
    """Whether the next layer with parameters takes as many channels."""
    taken = following.input_shape if following else None
    return taken is not None and taken[1:2] == (_channels(stop),)
