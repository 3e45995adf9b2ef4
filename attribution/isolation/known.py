"""What is known of the models that this thread has explained."""

import threading
import weakref
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from attribution.isolation.structural_copy import Shadow


@dataclass
class Block:
    """A model inside of `attribution.prepared`.

    Attributes:
        depth: How many blocks are open, one inside of the other.
        asked: Who was asked last: a technique of `explain`, with all that it was asked by.
        settled: What the calls inside have found out that further calls of the same question need not, by question.
    """

    depth: int = 0
    asked: Any = None
    settled: dict[Hashable, Any] = field(default_factory=dict)


@dataclass
class Known(threading.local):
    """By model and thread, so that one thread's hooks never see another's forward.

    Attributes:
        shadows: One per model.
        apart: Models of which no copy will do, with the modules that each runs without having registered them.
        prepared: Models whose structure is not compared with that of their copy for now.
    """

    shadows: WeakKeyDictionary[nn.Module, Shadow] = field(default_factory=WeakKeyDictionary)
    apart: WeakKeyDictionary[nn.Module, list[weakref.ref[nn.Module]]] = field(default_factory=WeakKeyDictionary)
    prepared: WeakKeyDictionary[nn.Module, Block] = field(default_factory=WeakKeyDictionary)


known = Known()
