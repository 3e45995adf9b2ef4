"""What can be refused before torch is imported, which takes seconds: files, techniques, parameters, forms of models."""

import ast
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from attribution import paths
from attribution.cli import typed
from attribution.errors import ModelError, UnknownAttributorError, nearest
from attribution.images import files

_GROUPS = ("attribution.techniques", "attribution.attributors", "attribution.references")
_OWN = "attribution.techniques"
_SOURCES = ("bundled", "torchvision", "timm")


def refuse(
    *,
    techniques: Sequence[str] = (),
    settings: Sequence[str] = (),
    images: Sequence[Path] = (),
    model: str | None = None,
    weights: Path | None = None,
) -> None:
    """Refuse what is wrong on the face of it; whatever passes is looked at again where it is used.

    Args:
        techniques: Names.
        settings: ``-p``.
        images: Files that must be there.
        model: As typed.
        weights: A file.

    Raises:
        UnknownAttributorError: No technique has this name.
        InputError: An image cannot be opened, or no technique has such a parameter.
        ModelError: The model is of no known form, or a file is missing.
    """
    known = {name: _parameters(name) for name in techniques}
    if None not in known.values():
        fields = {name: own for name, own in known.items() if own is not None}
        for name, (own, _) in typed.shared_out(fields, settings, ()).items():
            for setting in own:
                if setting.partition("=")[0].strip() != "score":  # a technique is asked for why it has none
                    typed.value_of(name, fields[name], setting)
    typed.no_parameters(images, [own or [] for own in known.values()])
    for image in images:
        files.openable(image)
    if model is not None:
        _model(model)
    if weights is not None and (fault := paths.fault(weights)):
        raise ModelError(f"the weights file {paths.named(weights)} {fault}; give a .pth, .pt or .safetensors file")


def _parameters(technique: str) -> list[str] | None:
    """Names of a technique's parameters, in order; ``None`` where only an import would tell.

    Raises:
        UnknownAttributorError: No installed distribution brings it.
    """
    points = {group: entry_points(group=group) for group in _GROUPS}
    names = {point.name for point in points[_OWN]}
    names |= {point.name.rpartition(".")[0] for group in _GROUPS[1:] for point in points[group]}
    if technique not in names:
        listed = ", ".join(sorted(names))
        raise UnknownAttributorError(f"no technique {technique!r}{nearest(technique, names)}. Installed: {listed}")
    (value, *others) = [point.value for point in points[_OWN] if point.name == technique] or [""]
    module, _, name = value.partition(":")
    return None if others or module != _OWN else _fields(_OWN, name)


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


def _model(spec: str) -> None:
    file, _, function = spec.rpartition(":")
    if file.endswith(".py") and function:
        if fault := paths.fault(file):
            told = f"no file {paths.named(file)}" if fault == paths.MISSING else f"{paths.named(file)} {fault}"
            raise ModelError(f"{told}; a model from a file is written FILE.py:FUNCTION")
        return
    if spec.partition(":")[0] not in _SOURCES or not spec.partition(":")[2]:
        hint = ""
        if spec.endswith(".py"):
            hint = f": name the function that makes the model, as in {spec}:make_model"
        elif spec.endswith((".pth", ".pt", ".safetensors")):
            hint = ": that is a weights file; name the architecture and pass the file with --weights"
        else:
            return  # torchvision knows what is alike
        raise ModelError(
            f"no model {spec!r}{hint}; a model is written bundled:NAME, torchvision:NAME, timm:NAME or FILE.py:FUNCTION"
        )
