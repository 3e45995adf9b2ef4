"""What a layer may be called; read without importing torch."""

import re
from dataclasses import dataclass
from typing import Self

from attribution.errors import LayerError

_NAME = re.compile(r"(?P<path>[^#\[\]]+?)(#(?P<call>\d+))?(?P<entry>:in)?(?P<keys>(\[[^\[\]]+\])*)")
_KEY = re.compile(r"\[([^\]]+)\]")


@dataclass(frozen=True)
class LayerName:
    """A layer as the user writes it: ``path``, ``path#call``, ``path[key]``, ``path:in``, ``path#call:in[key]``.

    Attributes:
        text: As given; the key of the map.
        path: What ``named_modules()`` prints.
        call: Which run of a module that runs several times in one forward, counted from 0.
        entry: Whether the layer's input is meant rather than its output.
        keys: Which item of a tuple, list or dict, one key for each level; digits are an index, or where there is none a
            string. Of an input the first key is the position of an argument, or its keyword.
    """

    text: str
    path: str
    call: int | None = None
    entry: bool = False
    keys: tuple[str | int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a layer name.

        Raises:
            LayerError: Not a string, or none of these forms.
        """
        match = _NAME.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise LayerError(
                f"layer {text!r} is not a name; give 'features.28', 'relu#1' (its second run), 'lstm[0]' or "
                "'block:in' (its input)"
            )
        return cls(
            text=text,
            path=match["path"],
            call=None if match["call"] is None else int(match["call"]),
            entry=match["entry"] is not None,
            keys=tuple(int(k) if k.isdecimal() and str(int(k)) == k else k for k in _KEY.findall(match["keys"])),
        )

    @property
    def plain(self) -> bool:
        """Whether the name means the whole output of the module's only run."""
        return self.call is None and not self.entry and not self.keys

    @property
    def whole(self) -> str:
        """The name without its keys."""
        return self.text.partition("[")[0]
