"""A seeded part of a large matrix of tests: what every run takes. The rest is behind ``-m slow``.

``ATTRIBUTION_DRAW=7 pytest`` draws another part. A failure names its test, which ``-m ''`` runs alone.
"""

import os
import zlib
from collections.abc import Sequence
from typing import Any

import pytest

SEED = os.environ.get("ATTRIBUTION_DRAW", "0")


def drawn(name: str, part: float) -> bool:
    """Whether a test of this name is in the part that every run takes."""
    return zlib.crc32(f"{SEED} {name}".encode()) < part * 2**32


def some(parameters: Sequence[Any], part: float, *, whole: Sequence[str] = ()) -> list[Any]:
    """The same parameters, those not drawn marked as slow.

    Args:
        parameters: Made by ``pytest.param`` with an id.
        part: Of them that is drawn, 0 to 1.
        whole: Beginnings of ids that are always drawn.
    """
    return [
        each
        if str(each.id).startswith(tuple(whole)) or drawn(str(each.id), part)
        else pytest.param(*each.values, id=each.id, marks=[*each.marks, pytest.mark.slow])
        for each in parameters
    ]
