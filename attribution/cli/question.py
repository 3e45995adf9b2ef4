"""``attribution explain`` and ``attribution compare``: techniques, asked about images."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer
from torch import Tensor
from tqdm.auto import tqdm

from attribution import api, comparison, images, layers, plots, registry
from attribution.cli import parameters, scores, typed
from attribution.cli.output_folder import ResultFolder, stems
from attribution.cli.setting import Setting
from attribution.cli.text import summary
from attribution.errors import InputError, TargetError
from attribution.inputs.inputs import Inputs
from attribution.result import Attribution
from attribution.scores.reading import Asked
from attribution.scores.score import Score
from attribution.side_by_side import side_by_side
from attribution.technique import Technique
from attribution.techniques import FilterVisualization

Kept = dict[Path, Tensor]
"""What the model gets of an image, on the host."""

MOST_KEPT = 2**29
"""Bytes of images that are kept from their check until they are explained; further ones are read again."""


@dataclass(frozen=True)
class Question:
    """What was asked, read and checked as far as that goes without the model; techniques by their own names."""

    techniques: Mapping[str, Technique]
    paths: tuple[Path, ...]
    targets: tuple[str, ...]
    score: scores.TypedScore


def parse(
    names: Sequence[str],
    backend: str | None,
    paths: Sequence[Path],
    layer_names: Sequence[str],
    targets: Sequence[str],
    settings: Sequence[str],
    score: str | None = None,
    output: str | None = None,
) -> Question:
    """Understand a command line.

    Args:
        names: of the techniques.
        backend: who computes; ``None``: all that are installed, at least two.
        paths: of the images; one given twice counts once.
        layer_names: ``--layer``.
        targets: ``--target``.
        settings: ``-p``.
        score: ``--score``.
        output: ``--output``.

    Raises:
        UnknownAttributorError: no such technique or backend.
        InputError: parameters that the technique does not take; images missing, or given to a technique that
            makes its own.
        TargetError: a target or score for a technique that explains none, or a score that is none.
    """
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"--technique {repeated[0]} is given twice; give it once")
    kinds = {name: _kind(name, backend) for name in names}
    known = {name: parameters.names(kind) for name, kind in kinds.items()}
    typed.no_parameters(paths, list(known.values()))
    own = typed.shared_out(known, settings, layer_names)
    techniques = {name: parameters.technique(kind, *own[name]) for name, kind in kinds.items()}
    for name, kind in kinds.items():
        if kind.needs_inputs and not paths:
            raise InputError(f"{name} needs an image; give the path of one")
        if not kind.needs_inputs and len(kinds) > 1:
            raise InputError(f"{name} makes its own images; ask it alone")
        if not kind.needs_inputs and paths:
            raise InputError(f"{name} makes its own images; leave {paths[0]} out")
    for option, given in (("--target", targets), ("--score", score), ("--output", output)):
        if given and not any(kind.needs_target for kind in kinds.values()):
            raise TargetError(f"{' and '.join(names)} explain{'s' * (len(names) == 1)} no score; leave {option} out")
    read = scores.parse(score, output, targets=bool(targets))
    distinct = {_identity(path): path for path in paths}
    return Question(techniques, tuple(distinct.values()), tuple(targets), read)


def _kind(name: str, backend: str | None) -> type[Technique]:
    """The technique of a name.

    Raises:
        UnknownAttributorError: there is none, or not by this backend.
        InputError: it is to be compared, and has one backend.
    """
    installed = registry.backends(name)
    if backend is None and len(installed) == 1:
        raise InputError(f"{name} has one backend, {installed[0]}; comparing needs two: install another")
    return registry.get(name, backend or next(iter(installed), "hooks")).technique_type


def _identity(path: Path) -> str:
    """What two names of one file share; that of a path which names none is told when it is read."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return str(path)


def explain(question: Question, setting: Setting, backend: str, folder: ResultFolder) -> None:
    """Answer for each image, and write ``STEM.TECHNIQUE.safetensors`` and the pictures; see `_draw`."""
    kept: Kept = {}
    techniques, target = fitted(question, setting), checked(question, setting, kept)
    for stem, inputs, picture in _asked(question, setting, kept):
        results = answers(setting, inputs, techniques, backend, target)
        told = _draw(results, setting, picture, folder.stage, stem)
        for name, result in results.items():
            result.save(folder.stage / f"{stem}{name}.safetensors")
            told[f"{stem}{name}.safetensors"] = summary(result, setting.loaded)
        for path in folder.publish():
            tqdm.write(f"{path}  {told[path.name]}")
        for name, result in results.items():
            if zero := result.provenance.get("zero everywhere"):
                words = str(zero).replace(" · image 0", "")  # each answer is of one image
                place = folder.path / f"{stem}{name}.safetensors"
                tqdm.write(f"note: {place}: the map is zero everywhere: {words}", file=sys.stderr)


def answers(
    setting: Setting, inputs: Tensor | None, techniques: Mapping[str, Technique], backend: str, target: Asked
) -> dict[str, Attribution]:
    """Of one image, by technique."""
    model, execution = setting.model, setting.execution
    if len(techniques) > 1:
        return api.explain_many(model, inputs, techniques, backend=backend, target=target, execution=execution)
    ((name, technique),) = techniques.items()
    return {name: api.explain(model, inputs, technique, backend=backend, target=target, execution=execution)}


def _draw(
    results: Mapping[str, Attribution], setting: Setting, picture: np.ndarray | None, stage: Path, stem: str
) -> dict[str, str]:
    """Write ``STEM.techniques.png`` where there are several heatmaps, and ``STEM.TECHNIQUE.png`` for whatever else.

    Returns:
        What each file shows, by its name.
    """
    loaded, told = setting.loaded, {}
    heatmaps = {name: result for name, result in results.items() if result.technique.kind == "heatmap"}
    if len(heatmaps) > 1:
        plots.save(side_by_side(heatmaps, picture, loaded.labels, model=loaded.title), stage / f"{stem}techniques.png")
        told[f"{stem}techniques.png"] = ", ".join(heatmaps)
    else:
        heatmaps = {}
    for name, result in results.items():
        if name not in heatmaps:
            plots.save(result.figure(picture, loaded.labels, model=loaded.title), stage / f"{stem}{name}.png")
            told[f"{stem}{name}.png"] = summary(result, loaded)
    return told


def compare(question: Question, setting: Setting, folder: ResultFolder) -> bool:
    """Answer by every installed backend, print who agrees, and draw the difference; whether all agree."""
    kept: Kept = {}
    techniques, target = fitted(question, setting), checked(question, setting, kept)
    ((stem, inputs, picture),) = _asked(question, setting, kept)
    model, execution = setting.model, setting.execution
    if len(techniques) > 1:
        found = comparison.compare(model, inputs, techniques, target=target, execution=execution)
    else:
        ((single, technique),) = techniques.items()
        found = {single: comparison.compare(model, inputs, technique, target=target, execution=execution)}
    for name, each in found.items():
        typer.echo(f"{name}\n{each.table()}" if len(found) > 1 else each.table())
        for names in each.agreements:
            figure = each.figure(picture, backends=names)
            plots.save(figure, folder.stage / f"{stem}{name}.{'-'.join(names)}.png")
    for path in folder.publish():
        typer.echo(path)
    for name, each in found.items():
        own = f"{name}: " if len(found) > 1 else ""
        verdict = f"{each.verdict}, largest scaled difference {each.largest:.1e}"
        typer.echo(f"{own}{', '.join(each.attributions)}: {verdict}")
    return all(each.holds for each in found.values())


def fitted(question: Question, setting: Setting) -> dict[str, Technique]:
    """The techniques with what the model's transform tells."""
    return {name: setting.fitted(technique) for name, technique in question.techniques.items()}


def checked(question: Question, setting: Setting, kept: Kept | None = None) -> Asked:
    """Refuse what cannot work before the first image is explained; the targets as `api` takes them.

    Args:
        question: See there.
        setting: See there.
        kept: Is given what the model gets of each image, up to `MOST_KEPT` bytes.
    """
    for technique in question.techniques.values():
        if not (isinstance(technique, FilterVisualization) and technique.of_logits(setting.model)):
            for name in parameters.layers_of(technique):
                layers.find(setting.model, name)
    target = question.score.asked(setting.target(question.targets))
    if isinstance(target, Score) and target.of_layer is not None:
        layers.find(setting.model, target.of_layer)
    cut, room = list[str](), MOST_KEPT
    for path in question.paths:
        photo = images.read(path)
        tensor = setting.inputs(photo)
        for technique in question.techniques.values():
            technique.check(Inputs.of(tensor))
        room -= tensor.nbytes
        if kept is not None and room >= 0:
            kept[path] = tensor.cpu()
        cut += [f"of {path} {told}"] if (told := setting.cut(photo)) else []
    if cut:
        more = f", of {len(cut) - 1} other photos less than all" * (len(cut) > 1)
        print(f"note: {cut[0]}{more}; --stretch shows whole photos", file=sys.stderr)
    return target


def _asked(question: Question, setting: Setting, kept: Kept) -> Iterator[tuple[str, Tensor | None, np.ndarray | None]]:
    """Per image the beginning of its results' names, the model's inputs and what the model sees."""
    if not question.paths:
        yield "", None, None
        return
    names = zip(question.paths, stems(question.paths), strict=True)
    silent = None if len(question.paths) > 1 else True  # None: silent where nobody watches
    for path, stem in tqdm(list(names), desc=", ".join(question.techniques), unit="image", disable=silent):
        known = kept.pop(path, None)
        inputs = setting.inputs(images.read(path)) if known is None else known.to(setting.device)
        yield f"{stem}.", inputs, setting.picture(inputs)
