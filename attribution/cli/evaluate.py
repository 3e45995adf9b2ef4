"""``attribution evaluate``: which technique to trust on a model, by a folder of photos."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import typer
from torch import Tensor

from attribution import layers, metrics, plots, registry, runs, zoo
from attribution.cli import parameters, scores, typed
from attribution.cli.run import ended, items_of
from attribution.cli.setting import Setting
from attribution.cli.text import table as columns
from attribution.errors import InputError, nearest
from attribution.images.samples import DISTINCT
from attribution.metrics import Table, kept
from attribution.metrics.baselines import WORDS, One
from attribution.metrics.evaluate import contestants
from attribution.metrics.extremes import extremes_figure, of_run
from attribution.metrics.kept import Scoring
from attribution.metrics.photos import Question
from attribution.metrics.verdicts import cells
from attribution.metrics.writing import write
from attribution.runs.tables import SCORES
from attribution.scores.score import Score
from attribution.technique import Technique

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
        metrics.ROAD,
        metrics.ROADLeRF,
        metrics.ROADMoRF,
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
    folder: Path | None
    sample: int | None


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
        folder: Of photos, or a list of them; ``None``: the sample photos.
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
        InputError: No such metric, baseline, parameter or folder.
    """
    if folder is not None and not folder.exists():
        raise InputError(f"no folder or list {str(folder)!r}; give one with photos")
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
        folder,
        sample,
    )


def run(asked: Evaluation, setting: Setting, out: Path, plan: runs.Plan, *, device: str) -> int:
    """Begin or go on with an evaluation: print the table and its sentences, write files and pictures; the exit code.

    Raises:
        InputError: Something that was typed cannot be used.
        OutputError: The folder cannot be written, or another process runs there.
    """
    target = asked.score.asked(setting.target(asked.targets))
    if isinstance(target, Score) and target.of_layer is not None:
        layers.find(setting.model, target.of_layer)
    question = Question(
        contestants=contestants(asked.techniques),
        metrics=asked.metrics,
        baselines=asked.baselines or None,
        backend=asked.backend,
        execution=replace(setting.execution, progress=False),
    )
    work = Scoring(setting.model, question, target)
    items = _photos(asked, setting, out)
    outcome = runs.carry_out(work, items, out, plan, device=torch.device(device), on_shard=work.costs)
    if not outcome.leads:
        return 0
    if not outcome.left and outcome.failed < outcome.items:
        _tell(kept.table(outcome.root, work, items, setting.loaded.name), items, setting, out)
    return ended(outcome, out)


def _tell(found: Table, items: runs.Items, setting: Setting, out: Path) -> None:
    typer.echo(columns(cells(found, [found.headline])))
    better = found.better[found.headline]
    typer.echo(f"Means over photos, with intervals of 95 %; {found.headline}: {better} is better.")
    typer.echo(f"{', '.join(found.controls)} are controls, which never see the model.")
    typer.echo()
    for sentence in found.verdicts():
        typer.echo(sentence)
    made = write(found, out, leave=(SCORES,))
    if len(found.photos) > 1:
        made.append(out / "extremes.png")
        plots.save(extremes_figure(found, of_run(out, items, setting.loaded.picture)), made[-1])
    typer.echo()
    for path in [out / SCORES, *made]:
        typer.echo(path)


def _photos(asked: Evaluation, setting: Setting, out: Path) -> runs.Items:
    if asked.folder is None:
        return runs.Examples(_Samples(setting), DISTINCT)
    found = items_of(asked.folder, setting, out)
    if asked.sample is None or asked.sample >= len(found.names):
        return found
    return _Drawn(found, sorted(random.Random(0).sample(range(len(found.names)), asked.sample)))


class _Samples:
    """The sample photos, as the model takes them."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def __len__(self) -> int:
        return len(DISTINCT)

    def __getitem__(self, index: int) -> Tensor:
        return self._setting.inputs(zoo.sample_photo(DISTINCT[index]))[0]


class _Drawn:
    """Some items of others."""

    def __init__(self, items: runs.Items, numbers: Sequence[int]) -> None:
        self._items, self._numbers = items, numbers
        self.names = [items.names[number] for number in numbers]
        self.source = f"{len(numbers)} drawn of {items.source}"
        self.transform = items.transform

    def __getitem__(self, index: int) -> runs.Item:
        return self._items[self._numbers[index]]

    def digest(self, index: int) -> str:
        return self._items.digest(self._numbers[index])


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
