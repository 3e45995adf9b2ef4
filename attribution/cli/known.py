"""What a shell completes: names that are known before torch is imported."""

from importlib.metadata import entry_points

from attribution.cli import early_models


def known_techniques(begun: str) -> list[str]:
    """Names of installed techniques that begin so."""
    return sorted(point.name for point in entry_points(group="attribution.techniques") if point.name.startswith(begun))


def known_backends(begun: str) -> list[str]:
    """Names of installed backends that begin so."""
    names = {point.name.rpartition(".")[2] for point in entry_points(group="attribution.attributors")}
    return sorted(name for name in names if name.startswith(begun))


def known_models(begun: str) -> list[str]:
    """The models that begin so; ``FILE.py:FUNCTION`` is left to the shell."""
    names = [f"bundled:{name}" for name in early_models.BUNDLED]
    names += [f"torchvision:{name}" for name in early_models.torchvision_names()]
    return [name for name in names if name.startswith(begun)]
