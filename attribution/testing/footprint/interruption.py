"""``Interruption``: Ctrl-C at one chosen place, and which places a call passes."""

import copyreg
import sys
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

_Tracer = Callable[[FrameType, str, Any], Any]
_UNSEEN = {weakref.__file__, copyreg.__file__, __file__}
"""Where Python itself catches what is raised: callbacks of weak references, and what copies remember of a class."""


@dataclass(frozen=True)
class Place:
    """A line that a call reaches: ``event`` is ``"call"``, ``"line"`` or ``"return"`` of its frame.

    Attributes:
        module: Name of the module.
    """

    code: CodeType
    line: int
    event: str
    module: str

    def __str__(self) -> str:
        return f"{self.module}, line {self.line} ({self.event} in {self.code.co_qualname})"


def places(act: Callable[[], object]) -> Counter[Place]:
    """Every place that ``act`` passes in this thread, in order of first arrival, with how often."""
    seen: Counter[Place] = Counter()

    def note(place: Place) -> None:
        seen[place] += 1

    with _Tracing(note):
        act()
    return seen


def interrupted(act: Callable[[], object], place: Place, number: int = 1) -> bool:
    """Raise KeyboardInterrupt when ``act`` comes to a place for the ``number``-th time; whether it arrived here.

    It does not where ``act`` never comes there, or where Python itself drops it: while a generator or an object dies.

    Raises:
        Swallowed: Somebody on the way caught the interrupt.
    """
    left, dropped = number, False

    def reach(reached: Place) -> None:
        nonlocal left
        if reached == place:
            left -= 1
            if not left:
                raise KeyboardInterrupt(f"at {place}")

    def drop(unraisable: "sys.UnraisableHookArgs") -> None:
        nonlocal dropped
        dropped = dropped or isinstance(unraisable.exc_value, KeyboardInterrupt)

    before, sys.unraisablehook = sys.unraisablehook, drop
    try:
        with _Tracing(reach):
            act()
    except KeyboardInterrupt:
        return True
    finally:
        sys.unraisablehook = before
    if left <= 0 and not dropped:
        raise Swallowed(f"a KeyboardInterrupt at {place} was swallowed")
    return False


class Swallowed(Exception):
    """A KeyboardInterrupt that did not arrive."""


class _Tracing:
    """Tells every event of this thread's frames to a function, which may raise."""

    def __init__(self, tell: Callable[[Place], None]) -> None:
        self._tell = tell

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *error: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, value: Any) -> _Tracer | None:
        code = frame.f_code
        if code.co_filename in _UNSEEN or code.co_name == "__del__":
            return None
        if event in ("call", "line", "return"):
            self._tell(Place(code, frame.f_lineno, event, str(frame.f_globals.get("__name__"))))
        return self._trace
