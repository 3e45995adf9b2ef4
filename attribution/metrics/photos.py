"""``Question`` and ``score_photos``: the unit of an evaluation, from some photos to their rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from math import isfinite
from time import perf_counter
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from attribution import api
from attribution.errors import InputError, NonFiniteError
from attribution.inputs.inputs import Inputs
from attribution.metrics.baselines import Baselines
from attribution.metrics.cells import CellMap, cell_maps
from attribution.metrics.controls import Control, controls
from attribution.metrics.cost import in_forwards
from attribution.metrics.curves import MOST_CELLS, Curves, removal_curves
from attribution.metrics.faithfulness import SRG, Deletion, Insertion, Reading, RemovalMetric
from attribution.metrics.metric import Case, Metric, changed
from attribution.metrics.rows import FORWARDS, SECONDS, CurveRow, Row
from attribution.metrics.scored import Scored
from attribution.metrics.settled import reading
from attribution.metrics.table import Table
from attribution.result import Attribution
from attribution.running.execution import Execution
from attribution.runs import fingerprint
from attribution.scores.reading import Asked
from attribution.technique import Technique

Mapper = Callable[[Inputs], Tensor]
"""Maps from elsewhere: inputs → (N, T, *cells), or (N, 1, *cells)."""

Contestant = Technique | Mapper


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of each photo.

    Attributes:
        contestants: By name.
        metrics: The first one is the headline.
        baselines: See `removal_curves`.
        backend: Of the techniques.
        seed: Of whatever is drawn.
        execution: Of all that runs.
    """

    contestants: Mapping[str, Contestant]
    metrics: Sequence[Metric] = (SRG(), Insertion(), Deletion())
    baselines: Baselines = None
    backend: str = "hooks"
    seed: int = 0
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        if not self.contestants:
            raise InputError("there is no technique to evaluate; give at least one, such as GradCAM()")
        for name, each in self.contestants.items():
            if isinstance(each, Technique) and each.kind != "heatmap":
                raise InputError(f"{name} gives no heatmap, so that no map of it can be scored; leave it out")
            if not callable(each) and not isinstance(each, Technique):
                raise InputError(f"{name!r} is {each!r}; give a technique such as GradCAM(), or a function of inputs")
        names = [metric.name if isinstance(metric, Metric) else repr(metric) for metric in self.metrics]
        if not names or len(set(names)) < len(names) or not all(isinstance(each, Metric) for each in self.metrics):
            raise InputError(f"metrics are {names}; give at least one, such as SRG(), and none twice")

    def table(self, rows: Sequence[Row], curves: Sequence[CurveRow], title: str = "") -> Table:
        """What was found, as a table.

        Raises:
            InputError: There is nothing.
        """
        if not rows:
            raise InputError("there are no photos to evaluate; give at least one that can be")
        better = {metric.name: metric.better for metric in self.metrics}
        return Table(rows, curves, tuple(self.contestants), better, title=title, seed=self.seed)


def score_photos(
    question: Question, model: nn.Module, inputs: Inputs, target: Asked, names: Sequence[str], first: int
) -> Scored:
    """All that is asked of some photos; what it says of one depends on no other.

    Args:
        question: See there.
        model: As found on every exit.
        inputs: The photos.
        target: As for `explain`; the prediction is made once, by the first technique, and asked of all.
        names: Of the photos.
        first: Place of the first photo in the data set.

    Raises:
        AttributionError: As `explain`; `NonFiniteError` where a metric has no finite value.
    """
    found, costs, settled = _maps(question, model, inputs, target, names)
    known = controls(inputs)
    given: dict[str, Attribution | Tensor] = {name: attribution for name, (attribution, _) in found.items()}
    given |= {name: control(inputs, question.seed, first) for name, control in known.items() if name not in given}
    labels = _labels(found, given)
    curves = _curves(question, model, inputs, given, settled, first)
    rows: list[Row] = []
    for metric in question.metrics:
        for name, map_ in given.items():
            if isinstance(metric, RemovalMetric):
                values = metric.told(curves[metric.reading][name])
            else:
                explained = found[name][1] if name in found else None
                control = None if name in found else known[name]
                values = metric.measure(
                    _case(question, model, inputs, map_, settled, first, explained=explained, control=control)
                )
            rows += _rows(names, labels, name, metric.name, values)
    cells: dict[str, CellMap] = {}
    for name, map_ in given.items():
        cells |= cell_maps(name, map_, inputs, MOST_CELLS)
    maps = {name: each.values.float() for name, each in cells.items()}
    return Scored(rows, curves.get(_asked_first(question), {}), maps, labels, costs)


def told(value: Any) -> object:
    """A value in words and numbers that are the same for the same value in another process."""
    if isinstance(value, Tensor):
        whole = value.detach().cpu().contiguous()
        return f"tensor {tuple(whole.shape)} {crc32(whole.flatten().view(torch.uint8).numpy().tobytes()):08x}"
    if isinstance(value, Mapping):
        return {str(name): told(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [told(each) for each in value]
    if is_dataclass(value):
        return {"type": type(value).__name__, **{each.name: told(getattr(value, each.name)) for each in fields(value)}}
    if value is None or isinstance(value, int | float | str):
        return value
    if isinstance(value, np.ndarray) and value.dtype != object:
        return told(torch.as_tensor(value))
    return fingerprint.of_function(value)


def settings(question: Question) -> dict[str, object]:
    """The question in words, for a file."""
    return {name: told(getattr(question, name)) for name in ("contestants", "metrics", "baselines", "backend", "seed")}


def _maps(
    question: Question, model: nn.Module, inputs: Inputs, target: Asked, names: Sequence[str]
) -> tuple[dict[str, tuple[Attribution | Tensor, Any]], list[Row], Any]:
    """The contestants' maps, each with the way to ask again; their seconds for each photo; and the target, settled."""
    found: dict[str, tuple[Attribution | Tensor, Any]] = {}
    rows: list[Row] = []
    settled: Any = target

    explained = partial(_explained, question)
    for name, contestant in question.contestants.items():
        before = perf_counter()
        answer: Attribution | Tensor
        if isinstance(contestant, Technique):
            answer = explained(model, inputs, contestant, settled)
            if answer.score is not None:
                settled = reading(answer.score, target)
        else:
            answer = contestant(inputs)
        took = (perf_counter() - before) / len(inputs)
        found[name] = answer, explained if isinstance(contestant, Technique) else None
        rows += [Row(photo, "", name, SECONDS, "", took) for photo in names]
    return found, rows, settled


def counted(question: Question, model: nn.Module, inputs: Inputs, target: Asked, photo: str) -> list[Row]:
    """What each technique costs of one photo, in forwards.

    Args:
        question: See `score_photos`.
        model: As found on every exit.
        inputs: One photo.
        target: Of it.
        photo: Its name.
    """
    rows = []
    # a lowered network does as many, by functions of oneDNN that torch has no formula for
    plain = replace(question, execution=replace(question.execution, lowered=False))
    for name, each in question.contestants.items():
        if isinstance(each, Technique):
            cost = in_forwards(partial(_explained, plain, model, inputs, each, target), model, inputs)
            rows += [Row(photo, "", name, FORWARDS, "", cost)] if isfinite(cost) else []
    return rows


def _explained(question: Question, model: nn.Module, inputs: Inputs, technique: Technique, score: Asked) -> Attribution:
    asked = score if technique.needs_target else None
    return api.explain(model, inputs, technique, backend=question.backend, target=asked, execution=question.execution)


def _case(
    question: Question,
    model: nn.Module,
    inputs: Inputs,
    map_: Attribution | Tensor,
    settled: Any,
    first: int,
    *,
    explained: Any,
    control: Control | None,
) -> Case:
    return Case(
        model=model,
        inputs=inputs,
        given=map_,
        target=settled,
        explained=explained,
        control=control,
        seed=question.seed,
        first=first,
        execution=question.execution,
    )


def _asked_first(question: Question) -> Reading:
    """The curves that are kept: those of the first metric that has some."""
    removal = [metric for metric in question.metrics if isinstance(metric, RemovalMetric)]
    return removal[0].reading if removal else ()


def _curves(
    question: Question,
    model: nn.Module,
    inputs: Inputs,
    given: Mapping[str, Attribution | Tensor],
    settled: Any,
    first: int,
) -> dict[Reading, dict[str, Curves]]:
    """One pass for all metrics that read the same."""
    found = {}
    for each in {metric.reading: None for metric in question.metrics if isinstance(metric, RemovalMetric)}:
        asked: dict[str, Any] = {"baselines": question.baselines, **dict(each)}
        found[each] = removal_curves(
            model,
            inputs,
            given,
            target=settled,
            seed=question.seed,
            first=first,
            execution=question.execution,
            **asked,
        )
    return found


def _labels(
    found: Mapping[str, tuple[Attribution | Tensor, Any]], given: Mapping[str, Attribution | Tensor]
) -> Sequence[Sequence[str]]:
    """A name for each photo and target."""
    for attribution, _ in found.values():
        if isinstance(attribution, Attribution) and attribution.names:
            return attribution.names
    tensors = [map_ for map_ in given.values() if isinstance(map_, Tensor)]
    most = max((map_.shape[1] for map_ in tensors), default=1)
    return [[f"target {t}" for t in range(most)]] * len(tensors[0])


def _rows(
    names: Sequence[str], labels: Sequence[Sequence[str]], name: str, metric: str, values: Mapping[str, Tensor]
) -> list[Row]:
    found = []
    for variant, each in values.items():
        if not bool(torch.isfinite(each).all()):
            raise NonFiniteError(f"{metric} of {name} is NaN or infinite; look for a map or a score that is")
        for n, photo in enumerate(each.tolist()):
            found += [Row(names[n], labels[n][t], name, metric, variant, value) for t, value in enumerate(photo)]
    return found


def by_layer(name: str, technique: Technique) -> dict[str, Technique]:
    """A technique of several layers as one for each."""
    layers = getattr(technique, "layers", ())
    if not isinstance(layers, tuple) or len(layers) < 2:
        return {name: technique}
    return {f"{name} · {layer}": changed(technique, layers=(layer,)) for layer in layers}
