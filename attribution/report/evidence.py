"""Scores of evidence that ``attribution evaluate`` left in a folder."""

from pathlib import Path

from attribution import metrics, paths
from attribution.errors import InputError
from attribution.metrics import kept
from attribution.runs.folder import RunFolder

RUN = "run.json"
_METRICS = {
    name: kind
    for name, kind in vars(metrics).items()
    if isinstance(kind, type) and issubclass(kind, metrics.Metric) and kind is not metrics.Metric
}


def read(folder: Path) -> metrics.Table:
    """The table of an evaluation, finished or not.

    Raises:
        InputError: No evaluation lies there, none of its photos is done, or it is by metrics that are not installed.
        OutputError: Its files cannot be read.
    """
    refuse(folder)
    opened = RunFolder.read(folder)
    question = opened.settings
    try:
        if question["kind"] != kept.KIND:
            raise ValueError(f"it is a run of {question['kind']}")
        contestants = tuple(map(str, question["work"]["contestants"]))
        kinds = [_METRICS[asked["type"]] for asked in question["work"]["metrics"]]
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{paths.named(folder)} holds no evaluation: {error}") from error
    rows, curves = kept.read(opened)
    if not rows:
        raise InputError(f"the evaluation in {paths.named(folder)} has no photo yet")
    return metrics.Table(rows, curves, contestants, {kind.name: kind.better for kind in kinds})


def refuse(folder: Path) -> None:
    """Refuse a folder without an evaluation.

    Raises:
        InputError: A file is missing.
    """
    if fault := paths.fault(folder / RUN):
        raise InputError(
            f"{paths.named(folder)} holds no evaluation: {RUN} {fault}; give what --out of `attribution evaluate` named"
        )
