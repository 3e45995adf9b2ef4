"""``attribution explain`` and ``attribution compare``: one technique, asked about images."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer
from torch import Tensor
from tqdm.auto import tqdm

from attribution import api, comparison, images, layers, plots, registry
from attribution.cli import parameters, scores
from attribution.cli.output_folder import ResultFolder, stems
from attribution.cli.setting import Setting
from attribution.cli.text import summary
from attribution.errors import InputError, TargetError
from attribution.inputs.inputs import Inputs
from attribution.scores.reading import Asked
from attribution.scores.score import Score
from attribution.technique import Technique
from attribution.techniques import FilterVisualization


@dataclass(frozen=True)
class Question:
    """What was asked, read and checked as far as that goes without the model."""

    technique: Technique
    paths: tuple[Path, ...]
    targets: tuple[str, ...]
    score: scores.TypedScore


def parse(
    name: str,
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
        name: of the technique.
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
    installed = registry.backends(name)
    if backend is None and len(installed) == 1:
        raise InputError(f"{name} has one backend, {installed[0]}; comparing needs two: install another")
    kind = registry.get(name, backend or next(iter(installed), "hooks")).technique_type
    technique = parameters.technique(kind, settings, layer_names)
    if kind.needs_inputs and not paths:
        raise InputError(f"{name} needs an image; give the path of one")
    if not kind.needs_inputs and paths:
        raise InputError(f"{name} makes its own images; leave {paths[0]} out")
    for option, given in (("--target", targets), ("--score", score), ("--output", output)):
        if given and not kind.needs_target:
            raise TargetError(f"{name} explains no score; leave {option} out")
    typed = scores.parse(score, output, targets=bool(targets))
    distinct = {_identity(path): path for path in paths}
    return Question(technique, tuple(distinct.values()), tuple(targets), typed)


def _identity(path: Path) -> str:
    """What two names of one file share; that of a path which names none is told when it is read."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return str(path)


def explain(question: Question, setting: Setting, backend: str, folder: ResultFolder) -> None:
    """Answer for each image, and write ``STEM.TECHNIQUE.png`` and ``.safetensors``."""
    technique, target = setting.fitted(question.technique), _checked(question, setting)
    for stem, inputs, picture in _asked(question, setting):
        result = api.explain(
            setting.model, inputs, technique, backend=backend, target=target, execution=setting.execution
        )
        figure = result.figure(picture, setting.loaded.labels)
        plots.save(figure, folder.stage / f"{stem}{technique.name}.png")
        result.save(folder.stage / f"{stem}{technique.name}.safetensors")
        for path in folder.publish():
            tqdm.write(f"{path}  {summary(result, setting.loaded)}")
        if zero := result.provenance.get("zero everywhere"):
            told = str(zero).replace(" · image 0", "")  # each answer is of one image
            tqdm.write(f"note: {path}: the map is zero everywhere: {told}", file=sys.stderr)


def compare(question: Question, setting: Setting, folder: ResultFolder) -> bool:
    """Answer by every installed backend, print who agrees, and draw the difference; whether all agree."""
    technique, target = setting.fitted(question.technique), _checked(question, setting)
    ((stem, inputs, picture),) = _asked(question, setting)
    found = comparison.compare(setting.model, inputs, technique, target=target, execution=setting.execution)
    typer.echo(found.table())
    for names in found.agreements:
        a, b = (found.attributions[name].raw for name in names)
        figure = plots.difference_figure(a, b, names, image=picture)
        plots.save(figure, folder.stage / f"{stem}{technique.name}.{'-'.join(names)}.png")
    for path in folder.publish():
        typer.echo(path)
    verdict = "agree" if found.holds else "DISAGREE"
    typer.echo(f"{', '.join(found.attributions)}: {verdict}, largest scaled difference {found.largest:.1e}")
    return found.holds


def _checked(question: Question, setting: Setting) -> Asked:
    """Refuse what cannot work before the first image is explained; the targets as `api` takes them."""
    technique = question.technique
    if not (isinstance(technique, FilterVisualization) and technique.of_logits(setting.model)):
        for name in parameters.layers_of(technique):
            layers.find(setting.model, name)
    target = question.score.asked(setting.target(question.targets))
    if isinstance(target, Score) and target.of_layer is not None:
        layers.find(setting.model, target.of_layer)
    for path in question.paths:
        question.technique.check(Inputs.of(setting.inputs(images.read(path))))
    return target


def _asked(question: Question, setting: Setting) -> Iterator[tuple[str, Tensor | None, np.ndarray | None]]:
    """Per image the beginning of its results' names, the model's inputs and what the model sees."""
    if not question.technique.needs_inputs:
        yield "", None, None
        return
    names = zip(question.paths, stems(question.paths), strict=True)
    silent = None if len(question.paths) > 1 else True  # None: silent where nobody watches
    for path, stem in tqdm(list(names), desc=question.technique.name, unit="image", disable=silent):
        inputs = setting.inputs(images.read(path))
        yield f"{stem}.", inputs, setting.picture(inputs)
