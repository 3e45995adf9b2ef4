"""Models and their layers, as far as they are known before torch is imported."""

import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from attribution import paths
from attribution.errors import LayerError, ModelError, nearest
from attribution.layer_name import LayerName

BUNDLED = ("squeezenet1_1", "efficientnet_lite0")
_FORMS = f"{', '.join(f'bundled:{name}' for name in BUNDLED)}, torchvision:NAME, timm:NAME or FILE.py:FUNCTION"
_CLASSIFIER = re.compile(r"^@register_model\(\)\n(?:@.*\n)*def (\w+)", re.MULTILINE)
_LISTED = "as `attribution layers` lists them"
_FIRE = ("squeeze", "squeeze_activation", "expand1x1", "expand1x1_activation", "expand3x3", "expand3x3_activation")
_FIRES = (3, 4, 6, 7, 9, 10, 11, 12)


def refuse(spec: str) -> None:
    """Refuse the name of a model that cannot be one.

    Raises:
        ModelError: It is of no known form, of a file that is missing, or none of the bundled or torchvision's models.
    """
    file, _, function = spec.rpartition(":")
    if file.endswith(".py") and function:
        if fault := paths.fault(file):
            told = f"no file {paths.named(file)}" if fault == paths.MISSING else f"{paths.named(file)} {fault}"
            raise ModelError(f"{told}; a model from a file is written FILE.py:FUNCTION")
        return
    source, _, name = spec.partition(":")
    if (source == "timm" and name) or (source == "bundled" and name in BUNDLED):
        return
    if spec.endswith(".py"):
        hint = f": name the function that makes the model, as in {spec}:make_model; a"
    elif spec.endswith((".pth", ".pt", ".ckpt", ".safetensors")):
        hint = ": that is a weights file; name the architecture and pass the file with --weights; a"
    else:
        theirs = torchvision_names()
        if not theirs or (source == "torchvision" and name in theirs):
            return
        known = [*(f"bundled:{each}" for each in BUNDLED), *(f"torchvision:{each}" for each in theirs)]
        same = [full for full in known if full.partition(":")[2] == spec.lower()]
        hint = f"; did you mean {' or '.join(map(repr, same))}? A" if same else f"{nearest(spec.lower(), known)}; a"
    raise ModelError(f"no model {spec!r}{hint} model is written {_FORMS}")


def torchvision_names() -> list[str]:
    """The classifiers of torchvision, read from its source; empty where it is written in another way."""
    found = find_spec("torchvision")  # which imports nothing
    places = found.submodule_search_locations if found else None
    names: list[str] = []
    for place in places or ():
        for file in sorted(Path(place, "models").glob("*.py")):
            try:
                names += _CLASSIFIER.findall(file.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return []
    return names


def refuse_layers(spec: str, names: Sequence[str]) -> None:
    """Refuse names of layers that no model has, and of the default model those that it has not.

    Raises:
        LayerError: A name is of no known form, has an empty step, or the default model lacks it.
    """
    for name in names:
        path = LayerName.parse(name).path.removeprefix("module.").removeprefix("_orig_mod.")
        if not all(path.split(".")):
            raise LayerError(f"layer {name!r} has an empty step; expected a name such as features.12, {_LISTED}")
        known = [*default_layers()] if spec == f"bundled:{BUNDLED[0]}" else []
        if known and path not in known:
            raise LayerError(f"no layer {path!r} in {spec}{nearest(path, known)}; expected a layer's name, {_LISTED}")


def default_layers() -> Iterator[str]:
    """Names of the modules of ``bundled:squeezenet1_1``, as ``model.named_modules()`` has them."""
    yield "features"
    for step in range(13):
        yield f"features.{step}"
        if step in _FIRES:
            yield from (f"features.{step}.{part}" for part in _FIRE)
    yield "classifier"
    yield from (f"classifier.{step}" for step in range(4))
