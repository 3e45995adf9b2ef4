"""Scores of evidence that ``attribution evaluate`` left in a folder."""

from pathlib import Path

from attribution import metrics, paths
from attribution.errors import InputError
from attribution.metrics import kept
from attribution.runs.folder import RunFolder

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
    found = RunFolder.read(folder)
    rows, curves = kept.read(found)
    if not rows:
        raise InputError(f"the evaluation in {paths.named(folder)} has no photo yet")
    try:
        contestants = tuple(map(str, found.settings["work"]["contestants"]))
        kinds = [_METRICS[asked["type"]] for asked in found.settings["work"]["metrics"]]
    except (LookupError, TypeError) as error:
        raise InputError(
            f"the evaluation in {paths.named(folder)} is by metrics that are not known: {error}"
        ) from error
    return metrics.Table(rows, curves, contestants, {kind.name: kind.better for kind in kinds})
