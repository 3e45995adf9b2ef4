"""Scores of evidence that ``attribution evaluate`` left in a folder."""

import json
from pathlib import Path

from attribution import metrics, paths
from attribution.errors import InputError
from attribution.metrics.journal import CURVES, QUESTION, SCORES

_METRICS = {
    name: kind
    for name, kind in vars(metrics).items()
    if isinstance(kind, type) and issubclass(kind, metrics.Metric) and kind is not metrics.Metric
}


def read(folder: Path) -> metrics.Table:
    """The table of an evaluation.

    Raises:
        InputError: No evaluation lies there, or one by metrics that are not installed.
        OutputError: Its files cannot be read.
    """
    refuse(folder)
    try:
        question = json.loads((folder / QUESTION).read_text(encoding="utf-8"))
        contestants = tuple(map(str, question["contestants"]))
        kinds = [_METRICS[asked["type"]] for asked in question["metrics"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{paths.named(folder / QUESTION)} is none of an evaluation: {error}") from error
    return metrics.Table.load(folder, contestants, {kind.name: kind.better for kind in kinds})


def refuse(folder: Path) -> None:
    """Refuse a folder without an evaluation.

    Raises:
        InputError: A file is missing.
    """
    for name in (QUESTION, SCORES, CURVES):
        if fault := paths.fault(folder / name):
            raise InputError(
                f"{paths.named(folder)} holds no evaluation: {name} {fault}; give what --out of `attribution "
                "evaluate` named"
            )
