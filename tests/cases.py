"""What the tests ask of every installed technique: its own example, for models with ``stem``, ``body``, ``head``."""

from attribution import available, registry
from attribution.technique import Technique

BACKENDS = ("captum", "hooks")

TECHNIQUES: dict[str, Technique] = {
    name: registry.technique(name).example() for name in sorted({name for name, _ in available()})
}

PAIRS: list[tuple[str, str]] = [(name, backend) for name in TECHNIQUES for backend in BACKENDS]
"""Every technique by either backend."""
