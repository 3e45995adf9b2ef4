"""Errors that a user can cause; each text says what was found, what was expected and how to mend it."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from difflib import get_close_matches


class AttributionError(Exception):
    """Base of everything this package raises on purpose.

    Attributes:
        label: Which technique has failed, by the user's name for it, where a call asks for several.
    """

    label: str = ""


class InputError(AttributionError, ValueError):
    """The inputs, or a parameter of the technique, cannot be used."""


class TargetError(AttributionError, ValueError):
    """What is to be explained is nothing of this model's output, or does not fit the images."""


class LayerError(AttributionError, ValueError):
    """The layer does not exist, never runs, runs several times, or does not give what the technique needs."""


class ModelError(AttributionError, RuntimeError):
    """The model cannot be loaded, run or differentiated, or its output is not a matrix of logits."""


class NonFiniteError(AttributionError, ArithmeticError):
    """NaN or infinity in the inputs or in a map."""


class ResourceError(AttributionError, RuntimeError):
    """Not enough memory even for the smallest chunk."""


class OutputError(AttributionError, OSError):
    """A result cannot be written or read."""


class PluginError(AttributionError, RuntimeError):
    """A distribution's attributor cannot be loaded or breaks the contract; names the distribution."""


class UnknownAttributorError(AttributionError, LookupError):
    """No installed distribution brings this technique by this backend."""


class BackendNotInstalledError(AttributionError, ImportError):
    """The attributor is known, but a library it needs is not installed."""


def nearest(name: str, choices: Iterable[str], count: int = 3) -> str:
    """A hint such as ``"; nearest: 'layer4', 'layer3'"``, or ``""`` where nothing is near."""
    near = get_close_matches(name, list(choices), n=count, cutoff=0.5)
    return "; nearest: " + ", ".join(map(repr, near)) if near else ""


def named(label: str) -> AbstractContextManager[None]:
    """Put before what an `AttributionError` of the block says whose it is, unless that is known; ``""``: nobody's."""
    return _named(label) if label else _NOBODY


_NOBODY = nullcontext()


@contextmanager
def _named(label: str) -> Iterator[None]:
    try:
        yield
    except AttributionError as error:
        if not error.label:
            error.label = label
            if not str(error).startswith(f"{label}: "):  # the name of a run has the label already
                error.args = (f"{label}: {error}", *error.args[1:])
        raise
