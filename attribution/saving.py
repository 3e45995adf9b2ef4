"""The file of a result: where it can be written, how it is written and read, and tensors that one answer can hold."""

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attribution import paths
from attribution.errors import InputError, OutputError
from attribution.scores.classes import ClassScore
from attribution.scores.score import Score
from attribution.scores.stored import restored, stored
from attribution.technique import Technique
from attribution.techniques.filter_visualization import objectives
from attribution.techniques.filter_visualization.objectives import Objective

SCHEMA = "2"
_READ = ("1", "2")
"""Schema 1 had no score: what was explained was a class, and how was a parameter of the technique."""
_HEADER = ("technique", "parameters", "backend", "computes_in", "provenance")

_OBJECTIVES: dict[str, type[Objective]] = {
    cls.__name__: cls
    for cls in (
        objectives.ChannelsObjective,
        objectives.DirectionObjective,
        objectives.FunctionObjective,
        objectives.SumObjective,
    )
}

_SHAPES = {"activation": "(N, …)", "heatmap": "(N, T, …)", "image": "(K, C, H, W)"}


def writable(path: str | Path) -> Path:
    """A path where a result can be written.

    Raises:
        OutputError: It is none, has another suffix, or its folder does not exist.
    """
    return paths.writable(path, (".safetensors",), "the only format maps are saved in")


def write(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """A file of tensors and texts; whole or not at all.

    Raises:
        OutputError: The write fails.
    """
    from safetensors.torch import save

    data = save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, dict(header))
    temporary = path.with_name(f".{secrets.token_hex(4)}")  # no longer than any name with the suffix
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write {paths.named(path)}: {reason}") from error
    finally:
        with suppress(OSError, ValueError):  # a name too long for the disk was never there
            temporary.unlink(missing_ok=True)


def header(path: str | Path) -> dict[str, str]:
    """The texts of a file.

    Raises:
        OutputError: The file does not exist or is not one that `Attribution.save` wrote.
    """
    from safetensors import SafetensorError, safe_open

    if fault := paths.fault(path):
        raise OutputError(f"cannot read {paths.named(path)}: it {fault}; give a file that Attribution.save wrote")
    try:
        with safe_open(path, framework="pt") as file:
            found = file.metadata() or {}
    except (OSError, ValueError, SafetensorError) as error:
        raise OutputError(f"cannot read {path}: {error}") from error
    if found.get("schema") not in _READ:
        raise OutputError(
            f"{path} was not written by Attribution.save (schema {found.get('schema')!r}, expected {SCHEMA!r})"
        )
    if missing := [name for name in _HEADER if name not in found]:
        raise OutputError(f"the header of {path} lacks {', '.join(missing)}; write it with Attribution.save")
    return found


def tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU.

    Raises:
        OutputError: It cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, ValueError, LookupError, AttributeError, SafetensorError) as error:
        raise OutputError(f"cannot read {path}: {error}") from error


def text(value: object) -> str:
    """As JSON; numpy's and torch's numbers and arrays in a plugin's parameters or notes as Python's.

    Raises:
        OutputError: JSON has no form for something in it.
    """

    def plain(part: Any) -> Any:
        if hasattr(part, "tolist"):
            return part.tolist()
        raise TypeError(f"{part!r} is no number, text, list or dict")

    try:
        return json.dumps(value, default=plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputError(f"the parameters or notes cannot be written: {error}") from error


def technique_text(technique: Technique) -> tuple[str, dict[str, Tensor]]:
    """The parameters of a technique as JSON, and its tensors by their names in the file; functions by name.

    Raises:
        OutputError: JSON has no form for a field.
    """
    tensors: dict[str, Tensor] = {}
    held = {field.name: _held(getattr(technique, field.name), field.name, tensors) for field in fields(technique)}
    return text(held), tensors


def parameters_of(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The parameters that `technique_text` wrote.

    Raises:
        KeyError, TypeError, AttributionError: The header holds none.
    """
    return {name: _read(value, tensors) for name, value in json.loads(header["parameters"]).items()}


def _held(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[f"parameters/{name}"] = value
        return {"tensor": f"parameters/{name}"}
    if isinstance(value, Objective) and type(value).__name__ in _OBJECTIVES:
        inner = {f.name: _held(getattr(value, f.name), f.name, tensors) for f in fields(value)}  # type: ignore[arg-type]
        return {"objective": type(value).__name__, "fields": inner}
    if isinstance(value, Mapping):
        return {"mapping": {key: _held(each, f"{name}/{key}", tensors) for key, each in value.items()}}
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if callable(value):
        return {"function": getattr(value, "__name__", type(value).__name__)}
    return [_held(each, name, tensors) for each in value] if isinstance(value, tuple) else value


def _read(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return tuple(_read(each, tensors) for each in value)
    if isinstance(value, dict) and set(value) == {"tensor"}:
        return tensors[value["tensor"]]
    if isinstance(value, dict) and set(value) == {"mapping"}:
        return {name: _read(each, tensors) for name, each in value["mapping"].items()}
    if isinstance(value, dict) and set(value) == {"function"}:
        return NamedFunction(str(value["function"]))
    if isinstance(value, dict) and set(value) == {"objective", "fields"}:
        given = {name: _read(each, tensors) for name, each in value["fields"].items()}
        return _OBJECTIVES[value["objective"]](**given)
    return value


class NamedFunction:
    """A function of which a file kept the name alone."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, *args: object) -> Any:
        """Cannot be computed.

        Raises:
            InputError: Always.
        """
        raise InputError(f"the function {self.__name__!r} was not saved with the file; give it again")


def score_text(score: Score) -> tuple[str, dict[str, Tensor]]:
    """A score as JSON, and its tensors by their names in the file.

    Raises:
        OutputError: JSON has no form for a field.
    """
    held, tensors = stored(score)
    return text(held), tensors


def score_of(
    header: Mapping[str, str], parameters: dict[str, Any], technique: type[Technique], tensors: Mapping[str, Tensor]
) -> Score | None:
    """The score of a file; of a file of schema 1 the classes, ``parameters`` being freed of what moved to the score.

    Raises:
        KeyError, TypeError, AttributionError: The header is none that was saved.
    """
    if header.get("schema") == "1":
        of = parameters.pop("score", technique.default_score.of)
        return ClassScore(tensors["target"], of=of) if "target" in tensors else None
    return restored(json.loads(header["score"]), tensors) if "score" in header else None


def flaw(
    technique: Technique,
    score: Score | None,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, Tensor],
) -> str | None:
    """What is wrong with the tensors of a file; ``None`` where nothing is.

    Args:
        technique: Of the answer.
        score: Likewise.
        shapes: What the header says was saved; files of earlier versions do not tell.
        tensors: As they are named in the file: ``"maps/body"``, ``"target"``.
    """
    for name, shape in shapes.items():
        if name not in tensors:
            return f"it lacks {name!r}, which was saved"
        if tuple(tensors[name].shape) != shape:
            return f"{name!r} is {tuple(tensors[name].shape)} and was {shape} when it was saved"
    maps = {name.removeprefix("maps/"): tensor for name, tensor in tensors.items() if name.startswith("maps/")}
    layers = getattr(technique, "layers", ())
    if not maps:
        return "it has no maps"
    if set(layers) & set(maps) and (missing := [layer for layer in layers if layer not in maps]):
        return f"it has no map of {missing[0]!r}"
    return _wrong_target(technique, score, tensors) or _wrong_map(
        technique, maps, tensors.get("scores"), told=bool(shapes)
    )


def _wrong_target(technique: Technique, score: Score | None, tensors: Mapping[str, Tensor]) -> str | None:
    target, scores = tensors.get("target"), tensors.get("scores")
    if technique.needs_target and target is None and (score is None or isinstance(score, ClassScore)):
        return "it has no target"
    if technique.needs_target and scores is None:
        return "it has no scores"
    if target is not None and (target.ndim != 2 or target.dtype != torch.int64 or not target.numel()):
        return f"its target is {tuple(target.shape)} of {target.dtype}; expected (N, T) of int64"
    if target is not None and scores is not None and scores.shape != target.shape:
        return f"its scores are {tuple(scores.shape)} for a target {tuple(target.shape)}"
    return None


def _wrong_map(technique: Technique, maps: Mapping[str, Tensor], scores: Tensor | None, *, told: bool) -> str | None:
    """``told``: the header says of which shape the maps were; files of earlier versions have heatmaps of images."""
    first = next(iter(maps.values())).shape[:1]
    titles = getattr(technique, "titles", None)
    if technique.kind == "image" and isinstance(titles, tuple):
        first = torch.Size([len(titles)])
    for name, map_ in maps.items():
        fits = map_.ndim == 4 or map_.ndim > {"activation": 0, "image": 1}.get(technique.kind, map_.ndim)
        fits = fits or (technique.kind == "heatmap" and told and map_.ndim > 1)  # of (N, D) layers to volumes
        fits = fits and map_.numel() > 0 and map_.shape[:1] == first
        if technique.kind == "heatmap" and scores is not None:
            fits = fits and map_.shape[:2] == scores.shape
        if not fits:
            return f"the map of {name!r} is {tuple(map_.shape)}; expected {_SHAPES.get(technique.kind)}"
        if not map_.isfinite().all():
            return f"the map of {name!r} holds NaN or infinity"
    return None
