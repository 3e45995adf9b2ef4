"""``attribution evaluate``: which technique to trust on a model, by a folder of photos."""

import random
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import typer
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from attribution import images, metrics, plots, registry, zoo
from attribution.cli import parameters, scores, typed
from attribution.cli.output_folder import ResultFolder
from attribution.cli.setting import Setting
from attribution.cli.text import table as columns
from attribution.errors import InputError, OutputError, nearest
from attribution.images.samples import DISTINCT
from attribution.metrics.baselines import WORDS, One
from attribution.metrics.evaluate import AT_ONCE
from attribution.metrics.verdicts import cells
from attribution.technique import Technique

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}

_METRICS: dict[str, type[metrics.Metric]] = {
    cls.name: cls
    for cls in (
        metrics.Infidelity,
        metrics.MaxSensitivity,
        metrics.Randomisation,
        metrics.CompletenessGap,
        metrics.SeedSpread,
        metrics.BackendDifference,
        metrics.Float64Difference,
    )
}


@dataclass(frozen=True)
class Evaluation:
    """What was asked, read and checked as far as that goes without the model."""

    techniques: dict[str, Technique]
    metrics: tuple[metrics.Metric, ...]
    baselines: tuple[One, ...]
    backend: str
    targets: tuple[str, ...]
    score: scores.TypedScore
    photos: tuple[Path, ...] | None


def parse(
    folder: Path | None,
    techniques: Sequence[str],
    metric_names: Sequence[str],
    baselines: Sequence[str],
    backend: str,
    targets: Sequence[str],
    settings: Sequence[str],
    sample: int | None,
    steps: int,
    score: str | None = None,
    output: str | None = None,
) -> Evaluation:
    """Understand a command line.

    Args:
        folder: Of photos, searched with its folders; ``None``: the sample photos.
        techniques: By name.
        metric_names: ``--metric``; the first is the headline.
        baselines: ``--baseline``: words or numbers.
        backend: Who computes.
        targets: ``--target``.
        settings: ``-p TECHNIQUE.NAME=VALUE``.
        sample: How many photos are drawn at random; ``None``: all.
        steps: Of a curve.
        score: ``--score``.
        output: ``--output``.

    Raises:
        UnknownAttributorError: No such technique or backend.
        InputError: No such metric, baseline, parameter or photo.
    """
    names = list(dict.fromkeys(techniques))
    kinds = {}
    for name in names:
        registry.get(name, backend)
        kinds[name] = registry.technique(name)
    own = typed.shared_out({name: parameters.names(kind) for name, kind in kinds.items()}, settings, ())
    found = {}
    for name, kind in kinds.items():
        if kind.kind != "heatmap":
            raise InputError(f"{name} gives no heatmap, so that no map of it can be scored; leave it out")
        found[name] = parameters.technique(kind, *own[name])
    read = scores.parse(score, output, targets=bool(targets))
    return Evaluation(
        found,
        tuple(_metric(name, steps) for name in dict.fromkeys(metric_names)),
        tuple(map(_baseline, baselines)),
        backend,
        tuple(targets),
        read,
        None if folder is None else _drawn(folder, sample),
    )


def run(asked: Evaluation, setting: Setting, folder: ResultFolder) -> None:
    """Print the table and its sentences; write the table, the figure, and CSV files of every photo."""
    names: deque[str] = deque()
    target = asked.score.asked(setting.target(asked.targets))
    found = metrics.evaluate(
        setting.model,
        _batches(asked, setting, names),
        asked.techniques,
        metrics=asked.metrics,
        baselines=asked.baselines or None,
        target=target,
        backend=asked.backend,
        names=iter(names.popleft, None),
        execution=setting.execution,
        out=folder.path,
        title=setting.loaded.name,
    )
    typer.echo(columns(cells(found, [found.headline])))
    typer.echo()
    for sentence in found.verdicts():
        typer.echo(sentence)
    try:
        (folder.stage / "table.md").write_text(found.text(), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write into {folder.path}: {error.strerror or error}") from error
    if found.curves:
        plots.save(found.figure(), folder.stage / "curves.png")
    typer.echo()
    for path in [*folder.publish(), folder.path / "scores.csv", folder.path / "curves.csv"]:
        typer.echo(path)


def _batches(asked: Evaluation, setting: Setting, names: "deque[str]") -> Iterator[Tensor]:
    """The model's inputs for some photos at once; a photo that cannot be read is named and left out."""
    together: list[Tensor] = []
    for name, photo in _photos(asked):
        inputs = setting.inputs(photo)
        if together and (len(together) == AT_ONCE or inputs.shape[1:] != together[0].shape[1:]):
            yield torch.cat(together)
            together = []
        names.append(name)
        together.append(inputs)
    if together:
        yield torch.cat(together)


def _photos(asked: Evaluation) -> Iterator[tuple[str, Image.Image]]:
    if asked.photos is None:
        yield from ((name, zoo.sample_photo(name)) for name in DISTINCT)
        return
    for path in asked.photos:
        try:
            photo = images.read(path)
        except InputError as error:
            tqdm.write(f"left out: {error}", file=sys.stderr)
        else:
            yield str(path), photo


def _drawn(folder: Path, sample: int | None) -> tuple[Path, ...]:
    """The photos of a folder in the order of their names, or so many of them at random."""
    if not folder.is_dir():
        raise InputError(f"no folder {str(folder)!r}; give one with photos")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    if not found:
        raise InputError(f"no photos in {str(folder)!r}; expected files such as .jpg or .png")
    if sample is not None and sample < len(found):
        found = sorted(random.Random(0).sample(found, sample))
    return tuple(found)


def _metric(name: str, steps: int) -> metrics.Metric:
    removal = {cls.name: cls for cls in (metrics.SRG, metrics.Insertion, metrics.Deletion)}
    if name in removal:
        return removal[name](steps=steps)
    if name not in _METRICS:
        known = [*removal, *_METRICS]
        raise InputError(f"no metric {name!r}{nearest(name, known)}; there are: {', '.join(known)}")
    return _METRICS[name]()


def _baseline(text: str) -> One:
    if text in WORDS:
        return WORDS[WORDS.index(text)]
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--baseline {text!r} is no baseline; give {', '.join(WORDS)} or a number") from None
