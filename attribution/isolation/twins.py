"""``Twins``: which object of a copy stands for which of the model, and whether the two still are alike."""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial
from operator import is_
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from attribution.isolation.reach import MADE_BY_A_STATEMENT
from attribution.running import torch_internals
from attribution.running.values import differ, grouped, write

COMPARED_FIRST = 2**24
"""Bytes of a tensor above which its values are compared before they are written again."""

Held = dict[Any, Any] | list[Any]

_plain: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


class Twins:
    """Pairs of objects. A tensor or array of a plain attribute becomes one when it is first compared.

    Such values are copied once, however large, and brought up to date by `refresh`. A registered buffer is too, unless
    it is large: see `Shadow`.

    Args:
        pairs: Of modules, and of buffers that were copied.
        buffers: The model's buffers that were copied, and their copies, in this order.
        registered: The model's parameters and buffers; values on their memory are not theirs alone.

    Attributes:
        sources: Tensors whose values are copied before each run.
        copies: Of these.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[object, object]],
        buffers: tuple[list[Tensor], list[Tensor]],
        registered: Iterable[Tensor],
    ) -> None:
        self.sources, self.copies = buffers
        self._large: list[tuple[Tensor, Tensor]] = []
        self._arrays: list[tuple[Any, Any]] = []
        self._known = {id(a): b for a, b in pairs}
        self._taken = {each.untyped_storage().data_ptr() for each in registered if each.layout == torch.strided}
        self._met: set[tuple[int, int]] = set()
        self._seen: list[tuple[Held, Held]] | None = None
        self._open = True
        self._groups: list[tuple[list[Tensor], list[Tensor]]] = []

    def close(self) -> None:
        """No further pair is made: what differs from now on has changed."""
        self._open = False
        self._groups = [
            ([self.copies[index] for index in group], [self.sources[index] for index in group])
            for group in grouped(self.sources)
        ]

    def begin(self) -> Callable[[Any, Any], bool]:
        """Begin to compare; what is returned is `same`."""
        self._met.clear()
        return self.same

    def held(self, mine: Iterable[object], theirs: Iterable[object]) -> list[tuple[Held, Held]]:
        """The dicts and lists in objects of the model and in their twins, up to the first difference."""
        self._seen = []
        try:
            all(map(self.begin(), mine, theirs))
            return self._seen
        finally:
            self._seen = None

    def refresh(self, *, graph: bool = False) -> None:
        """Give the copy's values those that the model's have now, however they came by them.

        Args:
            graph: A graph may need the values: none is written that is right.
        """
        if self.copies or self._large:
            with torch.no_grad():
                for copies, sources in () if graph else self._groups:
                    try:
                        torch_internals.copy_together(copies, sources)
                    except RuntimeError:  # a forward has given one another size, which is looked for only then
                        write(copies, sources)
                pairs = [*(zip(self.sources, self.copies, strict=True) if graph else ()), *self._large]
                changed = [pair for pair, found in zip(pairs, differ(pairs), strict=True) if found]
                write([own for _, own in changed], [source for source, _ in changed])
        for source, own in self._arrays:
            own[...] = source

    def same(self, a: Any, b: Any) -> bool:
        """Whether two plain attributes are alike; a doubt counts as a difference."""
        if a is b:
            return True
        kind = type(a)
        if kind is not type(b):
            return False
        if self._seen is not None and isinstance(a, dict | list):
            self._seen.append((a, b))
        if isinstance(a, list | tuple | deque):
            return len(a) == len(b) and (all(map(is_, a, b)) or all(map(self.same, a, b)))
        if isinstance(a, dict) and not getattr(a, "__dict__", None):
            return list(a) == list(b) and all(map(self.same, a.values(), b.values()))
        if isinstance(a, set | frozenset):
            return a == b and Counter(map(type, a)) == Counter(map(type, b)) and all(map(_is_atom, a))
        if isinstance(a, MethodType):
            return a.__func__ is b.__func__ and self.same(a.__self__, b.__self__)
        if isinstance(a, partial):
            return self.same(a.func, b.func) and self.same(a.args, b.args) and self.same(a.keywords, b.keywords)
        if isinstance(a, RemovableHandle):
            return bool(a.id == b.id)  # of a hook; no number is used twice
        if _is_atom(a):
            return bool(a == b)
        twin: Any = self._known.get(id(a))
        if twin is b:
            return isinstance(a, nn.Module) or (a.shape == twin.shape and a.dtype == twin.dtype)
        if kind is Tensor or (kind.__module__, kind.__name__) == ("numpy", "ndarray"):
            return self._open and self._paired(a, b)
        return self._same_object(a, b)

    def _same_object(self, a: object, b: object) -> bool:
        """Objects of plain classes count by what they hold; one that holds itself is met again."""
        if (id(a), id(b)) in self._met:
            return True
        self._met.add((id(a), id(b)))
        return _is_plain(type(a)) and self.same(vars(a), vars(b))

    def _paired(self, a: Any, b: Any) -> bool:
        if isinstance(a, Tensor):
            if not (self._alone(a) and self._alone(b)):
                return False
            if a.nbytes > COMPARED_FIRST:
                self._large.append((a, b))
            else:
                self.sources.append(a)
                self.copies.append(b)
        elif a.dtype.hasobject or not b.flags.writeable:
            return False
        else:
            self._arrays.append((a, b))
        self._known[id(a)] = b
        return True

    def _alone(self, tensor: Tensor) -> bool:
        """Whether values can be written into it, and nothing of the model's registries is on its memory."""
        return (
            tensor.layout == torch.strided
            and not (tensor.is_meta or tensor.is_quantized or tensor.requires_grad)
            and not torch_internals.overlaps_itself(tensor)
            and tensor.untyped_storage().data_ptr() not in self._taken
        )


def _is_atom(value: object) -> bool:
    return isinstance(value, bool | int | float | complex | str | bytes)


def _is_plain(kind: Any) -> bool:
    """Whether an object of this class is no more than its ``__dict__``, and is copied as such."""
    if kind not in _plain:
        usual: Any = object
        _plain[kind] = (
            all(
                base is object or (base.__flags__ & MADE_BY_A_STATEMENT and not vars(base).get("__slots__"))
                for base in kind.__mro__
            )
            and not any(hasattr(kind, name) for name in ("__deepcopy__", "__setstate__", "__getnewargs_ex__"))
            and all(getattr(kind, n) is getattr(usual, n) for n in ("__getstate__", "__reduce__", "__reduce_ex__"))
        )
    return _plain[kind]
