"""What can be refused before torch is imported, which takes seconds: files, techniques, parameters, forms of models."""

import ast
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from attribution import paths
from attribution.cli import early_models, typed
from attribution.errors import InputError, ModelError, UnknownAttributorError, nearest
from attribution.images import files

_GROUPS = ("attribution.techniques", "attribution.attributors", "attribution.references")
_OWN = "attribution.techniques"


def refuse(
    *,
    techniques: Sequence[str] = (),
    settings: Sequence[str] = (),
    images: Sequence[Path] = (),
    model: str | None = None,
    weights: Path | None = None,
    layers: Sequence[str] = (),
    backend: str | None = None,
) -> None:
    """Refuse what is wrong on the face of it; whatever passes is looked at again where it is used.

    Args:
        techniques: Names.
        settings: ``-p``.
        images: Files that must be there.
        model: As typed.
        weights: A file.
        layers: Names, which of the default model are known.
        backend: Who is to compute the techniques.

    Raises:
        UnknownAttributorError: No technique has this name, or not by this backend.
        InputError: An image cannot be opened, or no technique has such a parameter.
        ModelError: The model is of no known form, or a file is missing.
        LayerError: No model, or not the default one, has such a layer.
    """
    known = {name: _parameters(name) for name in techniques}
    for name in techniques if backend is not None else ():
        _backend(name, str(backend))
    if None not in known.values():
        fields = {name: own for name, own in known.items() if own is not None}
        for name, (own, _) in typed.shared_out(fields, settings, ()).items():
            for setting in own:
                if setting.partition("=")[0].strip() != "score":  # a technique is asked for why it has none
                    typed.value_of(name, fields[name], setting)
    typed.no_parameters(images, [own or [] for own in known.values()])
    for image in images:
        if image.is_dir():
            raise InputError(
                f"{paths.named(image)} is a folder; give images, or take `attribution run` or `attribution evaluate`"
            )
        files.openable(image)
    if model is not None:
        early_models.refuse(model)
        early_models.refuse_layers(model, layers)
    if weights is not None and (fault := paths.fault(weights)):
        raise ModelError(f"the weights file {paths.named(weights)} {fault}; give a .pth, .pt or .safetensors file")


def _parameters(technique: str) -> list[str] | None:
    """Names of a technique's parameters, in order; ``None`` where only an import would tell.

    Raises:
        UnknownAttributorError: No installed distribution brings it.
    """
    points = entry_points(group=_OWN)
    names = {point.name for point in points}
    names |= {name.rpartition(".")[0] for name in _attributors()}
    if technique not in names:
        if {*technique.split(",")} <= names:
            each = " ".join(f"-t {name}" for name in technique.split(","))
            raise UnknownAttributorError(f"no technique {technique!r}; each takes its own -t: {each}")
        listed = ", ".join(sorted(names))
        raise UnknownAttributorError(f"no technique {technique!r}{nearest(technique, names)}. Installed: {listed}")
    (value, *others) = [point.value for point in points if point.name == technique] or [""]
    module, _, name = value.partition(":")
    return None if others or module != _OWN else _fields(_OWN, name)


def _backend(technique: str, backend: str) -> None:
    there = {name.rpartition(".")[2] for name in _attributors() if name.rpartition(".")[0] == technique}
    if backend not in there:
        raise UnknownAttributorError(
            f"no backend {backend!r} of {technique}{nearest(backend, there)}; it is computed by "
            f"{', '.join(sorted(there)) or 'none that is installed'}"
        )


def _attributors() -> set[str]:
    return {point.name for group in _GROUPS[1:] for point in entry_points(group=group)}


def _fields(module: str, name: str) -> list[str] | None:
    """Fields of a dataclass and of its bases within this package, read from the source."""
    root = Path(__file__).parents[2]
    file = root.joinpath(*module.split("."))
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return None
    imported = {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    defined = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if name not in defined:
        where = imported.get(name, ("", ""))
        return _fields(*where) if where[0].startswith("attribution.") else []
    found: list[str] = []
    for base in defined[name].bases:
        inner = base.value if isinstance(base, ast.Subscript) else base
        own = _fields(module, inner.id) if isinstance(inner, ast.Name) else []
        found += [each for each in own or [] if each not in found]
    for node in defined[name].body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = ast.unparse(node.annotation)
            hidden = text.startswith(("ClassVar", "InitVar")) or text == "KW_ONLY"
            hidden = hidden or (node.value is not None and "init=False" in ast.unparse(node.value))
            if not hidden and node.target.id not in found:
                found.append(node.target.id)
    return found
