"""The process around a command: signals that end it, streams that break, errors that nobody foresaw."""

import errno
import io
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

import typer

from attribution.errors import AttributionError

REFUSED, INTERRUPTED, BROKEN_PIPE = 2, 130, 141
TRACEBACK = "ATTRIBUTION_TRACEBACK"
"""The environment variable that asks for the traceback of an error that nobody foresaw."""

_PATIENCE = 10.0  # seconds in which a second signal does not disturb the tidying up after the first
_LONGEST = 2000
# Public in every Typer, unlike its parent, which has moved between packages.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


class _Watched:
    """A stream that remembers why it could not be written to; afterwards nothing tells that from other errors."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.fault: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """As the stream does."""
        with self._watched():
            return self.stream.write(text)

    def flush(self) -> None:
        """As the stream does."""
        with self._watched():
            self.stream.flush()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.fault = error
            raise


class _Closed(io.TextIOBase):
    """In place of a standard output that was closed before the command began, where Python has none."""

    encoding, errors = "utf-8", "replace"

    def write(self, text: str) -> int:
        """Refuses."""
        raise OSError(errno.EBADF, "it is closed")


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end; passes wherever an interrupt from the keyboard passes."""


def run(command: Callable[[], object], *, completing: bool = False) -> int:
    """The exit code of a command, and its error told on stderr in a line or two, whatever it raises.

    Args:
        command: Returns an exit code, or anything else for 0.
        completing: The shell asks for completions, which end by ``exit``.
    """
    out, err = sys.stdout, sys.stderr
    watched = _Watched(cast(TextIO, _Closed()) if out is None else out)
    sys.stdout = cast(TextIO, watched)
    stops: list[int] = []
    code = INTERRUPTED
    # A signal may also come while an error is told: then there is nothing left to do but to end.
    with suppress(Stopped), _stoppable(stops):
        try:
            status = command()
            watched.flush()
            code = status if isinstance(status, int) else 0
        except BaseException as error:
            sys.stderr = err  # Typer puts another in its place where a pipe breaks
            code = _told(error, watched.fault, completing)
    sys.stdout, sys.stderr = out, err
    if watched.fault is not None:
        _silence(out)
    return 128 + stops[0] if stops else code


def _told(error: BaseException, fault: OSError | None, completing: bool) -> int:
    """Print what there is to say of an error, where ``fault`` is what kept standard output from being written."""
    if isinstance(error, AttributionError):
        return _refused(str(error))
    if isinstance(error, _UsageError):
        return _refused(_usage(error))
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED
    if completing and isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0
    if fault is not None:
        pipe = fault.errno == errno.EPIPE
        return BROKEN_PIPE if pipe else _refused(f"cannot write to standard output: {fault.strerror or fault}")
    if isinstance(error, SystemExit):
        return _refused(f"the model, or a plugin, ended the process by exit({error.code!r}); take that call out of it")
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    lines = _text(error).strip().splitlines()
    told = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return _refused(f"{told}\nThis was not foreseen; {TRACEBACK}=1 in the environment shows where it happened.")


def _usage(error: Any) -> str:
    """What Typer says of a command line that it cannot read, and where to look."""
    told = error.format_message().rstrip(".?")
    told += "?" if "Did you mean" in told else ""
    if re.match("No such option: -[^-]", told):
        told += "; a file whose name begins with a dash is written ./-NAME"
    command = getattr(getattr(error, "ctx", None), "command_path", "attribution")
    return f"{told}{'' if told.endswith('?') else ';'} `{command} --help` shows what there is"


def _text(error: BaseException) -> str:
    """What an exception says; one of a stranger's class may fail at that too."""
    try:
        return f"no {error}" if isinstance(error, KeyError) else str(error)
    except Exception:
        return ""


def _refused(text: str) -> int:
    """The error on one line, or two where it has more."""
    first, *rest = text.strip().splitlines() or ["unknown"]
    try:
        typer.echo(f"error: {first[:_LONGEST]}", err=True)
        if rest:
            typer.echo(" ".join(line.strip() for line in rest)[:_LONGEST], err=True)
    except (OSError, ValueError):
        _silence(sys.stderr)
    return REFUSED


def _silence(stream: TextIO | None) -> None:
    """Lead a stream nowhere, so that Python's own flush at the end finds nothing to complain of."""
    with suppress(OSError, ValueError):
        if stream is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


@contextmanager
def _stoppable(stops: list[int]) -> Iterator[None]:
    """SIGTERM and SIGHUP end a command as Ctrl-C does, so that what is half done is removed; notes those that came.

    Signals that the process ignores, as under ``nohup``, stay ignored.
    """
    last = -_PATIENCE

    def stop(number: int, frame: object) -> None:
        nonlocal last
        stops.append(number)
        before, last = last, time.monotonic()
        if last - before > _PATIENCE or len(stops) == 1:
            raise Stopped

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    taken = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    try:
        for number in taken:
            signal.signal(number, stop)
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
