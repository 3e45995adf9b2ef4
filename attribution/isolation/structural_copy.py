"""``Shadow``: a copy of a model's structure that shares its parameters and notices when it is no copy any more."""

import copy
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, compress
from operator import attrgetter, call, is_, is_not, itemgetter
from typing import Any

import torch
from torch import Tensor, fx, nn

from attribution.isolation import notes
from attribution.isolation.reach import Reach, says_itself
from attribution.isolation.restore import attributes_of, name_backward_hooks, to_eval
from attribution.isolation.twins import Held, Twins

LARGEST_COPY = 2**24
"""Bytes of a buffer above which a shadow shares it rather than holds its own copy."""

_Row = dict[str, Any]
_REGISTRIES = frozenset(vars(nn.Module())) | {"_compiled_call_impl", notes.NAME}
_MODULES = itemgetter("_modules")
_TENSORS = itemgetter("_parameters", "_buffers")
_HOOKS = itemgetter("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_FORM = attrgetter("shape", "dtype", "device")
_ROW = attrgetter("__dict__")
_DEVICE = attrgetter("device")


class Shadow:
    """A deep copy of a model in eval mode whose parameters are the model's own and whose buffers follow the model's.

    Attributes:
        model: The copy.
        shared: The buffers that it shares with the model, because they are large, or not the only tensor on their
            memory, or of a kind that has no plain copy. Who runs the copy puts their values back.
        reusable: Whether all attributes can be compared, so that the copy may serve again where `fits` holds.
        own_modes: Whether a module of the model has its own ``train`` or ``eval``.
        doubtful: Whether a part of the model says itself how it is copied, or is a graph module.
        proved: Whether the copy was found to say what the model says.
        busy: Whether a run has it, or was interrupted while it had it.
        hooked: Whether hooks of the model hold something, of which the copy's hold a copy.
        parameters: The model's.
        twins: What brings the copy's buffers up to date, and compares objects of both.

    Raises:
        Exception: Whatever a part of the model raises when it is copied.
        ValueError: A module says that it is its own copy, or its copy comes without its hooks, or code of the copy
            would run modules or write buffers of the model.
    """

    def __init__(self, model: nn.Module) -> None:
        mine, buffers = list(model.modules()), list(model.buffers())
        with torch.no_grad():
            private = {id(buffer): buffer.detach().clone() for buffer in _private(buffers, model.parameters())}
            kept: list[Tensor] = [*model.parameters(), *buffers]
            memo: dict[int, Any] = {id(tensor): tensor for tensor in kept} | private
            self.model = copy.deepcopy(model, memo)
        theirs = list(self.model.modules())
        if len(mine) != len(theirs) or any(map(is_, mine, theirs)):
            raise ValueError("a module of the model is its own copy")
        _keep_graphs(mine, theirs)
        to_eval(theirs)
        reach = Reach(self.model, mine)
        if entangled(reach, mine, {*map(id, theirs), *map(id, memo.values())}, private):
            raise ValueError("code of the model leads to its own modules past a copy of it")
        self.proved, self.busy = False, False
        self.doubtful = reach.doubtful or any(map(says_itself, map(type, mine)))
        self.shared = [buffer for buffer in buffers if id(buffer) not in private]
        sources, copies = [buffer for buffer in buffers if id(buffer) in private], [*private.values()]
        self.twins = Twins(zip([*mine, *sources], [*theirs, *copies], strict=True), (sources, copies), kept)
        self._children = [weakref.ref(module) for module in mine[1:]]
        self._types = list(map(type, mine))
        notes.begin(self.model)
        self.parameters = notes.notes(self.model)["parameters"] = list(model.parameters())
        rows, self._own = list(map(vars, mine)), list(map(vars, theirs))
        if list(map(len, _registries(rows)[2])) != list(map(len, _registries(self._own)[2])):
            raise ValueError("a module of the model loses its hooks when it is copied")
        self._note_structure(mine, rows)
        hooks, self._own_hooks = _all_hooks(rows), _all_hooks(self._own)
        self.hooked = any(map(is_not, hooks, self._own_hooks))
        name_backward_hooks(theirs)
        self.reusable = self._note_attributes(rows) and all(map(self.twins.same, hooks, self._own_hooks))
        self.twins.close()
        held = notes.notes(self.model)["held"] = [own for _, own in self.twins.held(hooks, self._own_hooks)]
        self._reset = attributes_of(theirs, beside=held)
        self._reset_unhooked = attributes_of(theirs, hooks=False, beside=held)
        self._forms, self._numbers = list(map(_FORM, self.twins.sources)), list(map(Tensor.numel, self.twins.copies))
        self.own_modes = any(map(own_modes, mine))

    def fits(self, model: nn.Module) -> bool:
        """Whether the copy still is one: structure, tensors, hooks and plain attributes, the model's and its own.

        Tensors count by identity: values are shared, or brought up to date by `refresh`. This runs before every
        call, so it passes over all modules at once, without a loop of its own.
        """
        modules: list[Any] = [model, *map(call, self._children)]
        if list(map(type, modules)) != self._types:  # also where a child is gone, which leaves None
            return False
        rows: list[_Row] = list(map(_ROW, modules))
        try:
            registries, held, hooks = kinds = _registries(rows)
            sizes = list(map(len, rows)), list(map(len, self._own)), list(map(len, chain(registries, held, hooks)))
            if (
                sizes != self._sizes
                or list(chain.from_iterable(chain.from_iterable(map(call, self._full, kinds)))) != self._names
            ):
                return False
            tree, tensors, hooked = (
                chain.from_iterable(map(dict.values, full(each))) for full, each in zip(self._full, kinds, strict=True)
            )
            mine, theirs = (
                list(chain.from_iterable(map(call, self._getters, self._with_attributes(each))))
                for each in (rows, self._own)
            )
        except KeyError:  # an attribute is gone
            return False
        if not (
            all(map(is_, tree, self._tree((*modules, None))))
            and all(map(is_, tensors, self._tensors))
            and list(map(_FORM, self.twins.sources)) == self._forms
            and list(map(Tensor.numel, self.twins.copies)) == self._numbers  # a forward may resize its buffers
            and list(map(len, self._own_buffers)) == self._own_buffer_sizes
            and all(map(is_, chain.from_iterable(map(dict.values, self._own_buffers)), self._own_tensors))
        ):
            return False
        # A deep copy shares what cannot change, so that most attributes are the same object on both sides.
        same, alike = self.twins.begin(), list(map(is_not, mine, theirs)) == self._apart
        pairs = (compress(mine, self._apart), compress(theirs, self._apart)) if alike else (mine, theirs)
        return all(map(same, *pairs)) and (not self.hooked or all(map(same, hooked, self._own_hooks)))

    @property
    def devices(self) -> list[torch.device]:
        """Of the model's parameters and buffers, the first parameter's first."""
        return list(dict.fromkeys(map(_DEVICE, compress(self._tensors, self._there))))

    def reset(self) -> "Shadow":
        """Take back what runs of the copy set on it: a module may remember what it saw."""
        self._reset()
        return self

    def restart(self) -> None:
        """As at the beginning of a run, but for hooks: a forward that only looked must not count."""
        self._reset_unhooked()
        self.twins.refresh(graph=True)

    def held_by_hooks(self, model: nn.Module) -> list[Held]:
        """The dicts and lists that the model's hooks hold, as far as the copy's are alike: a run writes into them."""
        rows = list(map(vars, model.modules()))
        return [own for own, _ in self.twins.held(_all_hooks(rows), self._own_hooks)] if self.hooked else []

    def _note_structure(self, modules: Sequence[nn.Module], rows: Sequence[_Row]) -> None:
        registries, held, hooks = _registries(rows)
        self._sizes = list(map(len, rows)), list(map(len, self._own)), list(map(len, chain(registries, held, hooks)))
        self._full = tuple(_picker([i for i, each in enumerate(kind) if each]) for kind in (registries, held, hooks))
        kinds = map(call, self._full, (registries, held, hooks))
        self._names = list(chain.from_iterable(chain.from_iterable(kinds)))  # numbers of hooks are never used twice
        place = {id(module): index for index, module in enumerate((*modules, None))}
        self._tree = _picker([place[id(module)] for each in registries for module in each.values()])
        self._tensors = [tensor for each in held for tensor in each.values()]
        self._there = [tensor is not None for tensor in self._tensors]
        self._own_buffers = [each for each in map(itemgetter("_buffers"), self._own) if each]
        self._own_buffer_sizes = list(map(len, self._own_buffers))
        self._own_tensors = [tensor for each in self._own_buffers for tensor in each.values()]

    def _note_attributes(self, rows: Sequence[_Row]) -> bool:
        names = [[name for name in row if name not in _REGISTRIES] for row in rows]
        self._with_attributes = _picker([index for index, found in enumerate(names) if found])
        self._getters = [itemgetter(*found, *found[:1]) for found in names if found]  # two names at least: a tuple
        if any(
            {*found} != {name for name in row if name not in _REGISTRIES}
            for found, row in zip(names, self._own, strict=True)
        ):
            return False
        mine, theirs = (
            list(chain.from_iterable(map(call, self._getters, self._with_attributes(each))))
            for each in (rows, self._own)
        )
        self._apart = list(map(is_not, mine, theirs))
        return all(map(self.twins.same, mine, theirs))


def _keep_graphs(mine: Sequence[nn.Module], theirs: Sequence[nn.Module]) -> None:
    """A graph module that has two graphs is copied with that of train mode, whatever its mode is."""
    for a, b in zip(mine, theirs, strict=True):
        if isinstance(a, fx.GraphModule) and isinstance(b, fx.GraphModule) and a.code != b.code:
            b.graph = copy.deepcopy(a.graph)


def entangled(reach: Reach, mine: Sequence[nn.Module], fresh: set[int], tensors: Iterable[int]) -> bool:
    """Whether code of a copy uses modules or buffers that are not the copy's: it would write into the user's.

    Args:
        reach: Of the copy.
        mine: The model's own modules.
        fresh: Ids of all that was made when it was copied.
        tensors: Ids of the model's tensors that were copied.
    """
    own = {*map(id, mine)}
    return (
        reach.endless
        or not reach.tensors.isdisjoint(tensors)
        or any(
            id(module) in own or (id(module) not in fresh and next(module.buffers(), None) is not None)
            for module in reach.modules
        )
    )


def own_modes(module: nn.Module) -> bool:
    """Whether its ``train`` or ``eval`` is its own, and may do more than set flags: merge weights, fill a cache."""
    kind = type(module)
    return kind.train is not nn.Module.train or kind.eval is not nn.Module.eval


def _private(buffers: Sequence[Tensor], parameters: Iterable[Tensor]) -> list[Tensor]:
    """The buffers of which a copy can stand in for the original: nothing else lies on the same memory."""
    plain = [tensor for tensor in (*parameters, *buffers) if tensor.layout == torch.strided and not tensor.is_meta]
    users = Counter(tensor.untyped_storage().data_ptr() for tensor in plain)
    return [
        buffer
        for buffer in buffers
        if type(buffer) is Tensor
        and buffer.layout == torch.strided
        and not (buffer.is_meta or buffer.is_quantized or buffer.requires_grad)
        and buffer.untyped_storage().nbytes() <= LARGEST_COPY
        and (users[buffer.untyped_storage().data_ptr()] == 1 or not buffer.untyped_storage().nbytes())
    ]


def _registries(rows: Sequence[_Row]) -> tuple[list[_Row], list[_Row], list[_Row]]:
    """The dicts of children, of parameters and buffers, and of hooks, of all modules."""
    return (
        list(map(_MODULES, rows)),
        list(chain.from_iterable(map(_TENSORS, rows))),
        list(chain.from_iterable(map(_HOOKS, rows))),
    )


def _all_hooks(rows: Sequence[_Row]) -> list[object]:
    return [hook for each in _registries(rows)[2] for hook in each.values()]


def _picker(places: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """A function that takes the items at these places."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda items: [items[place] for place in places]
