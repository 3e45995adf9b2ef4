"""Who else computes a metric: functions of other distributions, found by the entry points ``attribution.metrics``."""

import os
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from attribution.errors import BackendNotInstalledError, PluginError, UnknownAttributorError, nearest

GROUP = "attribution.metrics"
OWN = "torch"
"""The name of this package's own computation."""


def witnesses(metric: str) -> list[str]:
    """The installed ones, this package's own first; imports nothing."""
    return [OWN, *sorted(backend for name, backend in _entries() if name == metric)]


def find(metric: str, backend: str) -> Callable[..., Any]:
    """The function that computes a metric.

    Raises:
        UnknownAttributorError: Nobody brings it.
        BackendNotInstalledError: A library that it needs is missing.
        PluginError: It cannot be imported.
    """
    entry = _entries().get((metric, backend))
    if entry is None:
        known = witnesses(metric)
        raise UnknownAttributorError(
            f"{metric} has no backend {backend!r}{nearest(backend, known)}. Installed: {', '.join(known)}"
        )
    try:
        function: Callable[..., Any] = entry.load()
    except ModuleNotFoundError as error:
        raise BackendNotInstalledError(f"{entry.name} needs {error.name!r}, which is not installed") from error
    except Exception as error:
        raise PluginError(f"{entry.name} ({entry.value}) cannot be imported: {error}") from error
    return function


def _entries() -> dict[tuple[str, str], EntryPoint]:
    only_own = os.environ.get("ATTRIBUTION_PLUGINS") == "off"
    found = {}
    for entry in entry_points(group=GROUP):
        name, _, backend = entry.name.partition(".")
        if not only_own or entry.dist is None or entry.dist.name == "torch-attribution":
            found[name, backend] = entry
    return found
