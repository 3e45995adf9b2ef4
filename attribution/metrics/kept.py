"""Evaluations that are kept in a folder: runs whose items are scores."""

import json
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attribution.errors import InputError, OutputError
from attribution.inputs.inputs import Inputs
from attribution.metrics.photos import Question, counted, score_photos, settings, told
from attribution.metrics.rows import FORWARDS, SECONDS, CurveRow, Row
from attribution.metrics.scored import Points, Scored
from attribution.metrics.table import Table
from attribution.paths import named
from attribution.runs import files
from attribution.runs.explaining import asked_of, check_target, execution_text
from attribution.runs.folder import RunFolder
from attribution.runs.items import Examples, Items
from attribution.runs.plan import Plan
from attribution.runs.run import carry_out
from attribution.runs.work import Batch, Part
from attribution.scores.reading import Asked
from attribution.technique import Technique

KIND = "scores"
_COSTS, _FORWARDS = "costs", "forwards.json"


@dataclass(frozen=True, eq=False)
class Scoring:
    """The `attribution.runs.Work` of an evaluation.

    What a shard holds is the same however the run was broken off. Seconds are not, so that they lie beside the shards.

    Attributes:
        model: The user's.
        question: What is asked of each photo.
        target: As for `explain`, the same for all photos; ``None``: the class that the list names, else the prediction.
    """

    model: nn.Module
    question: Question
    target: Asked = None
    _seconds: dict[int, dict[str, float]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """``"scores"``."""
        return KIND

    @property
    def columns(self) -> Mapping[str, str]:
        """A line for each value."""
        return {"map": "string", "target": "string", "metric": "string", "variant": "string", "value": "double"}

    @property
    def settings(self) -> Mapping[str, Any]:
        """The question, the target, and how the model is run."""
        asked = settings(self.question)
        return {**asked, "target": told(self.target), "execution": execution_text(self.question.execution)}

    def __call__(self, batch: Batch, keep: Sequence[int]) -> Part:
        """The scores of the photos that are kept. Neighbours in the run are scored together."""
        found = [self._scored(batch, rows) for rows in _neighbours(batch, keep)]
        lines: dict[str, list[Mapping[str, Any]]] = {str(batch.items[row]): [] for row in keep}
        for each in found:
            for row in each.rows:
                line = {"map": row.map, "target": row.target, "metric": row.metric, "variant": row.variant}
                lines[row.photo].append({**line, "value": row.value})
            for row in each.costs:
                self._seconds.setdefault(int(row.photo), {})[row.map] = row.value
        first = found[0]
        header = {
            "maps": list(first.maps),
            "curves": [[name, list(each.baselines), each.removed.tolist()] for name, each in first.curves.items()],
            "labels": [list(labels) for each in found for labels in each.labels],
        }
        tensors = {}
        for k, name in enumerate(first.maps):
            tensors[f"map {k}"] = torch.cat([each.maps[name] for each in found])
        for k, name in enumerate(first.curves):
            tensors[f"most {k}"] = torch.cat([each.curves[name].most for each in found])
            tensors[f"least {k}"] = torch.cat([each.curves[name].least for each in found])
        return Part(tensors, header, [*lines.values()])

    def costs(self, folder: RunFolder, record: Mapping[str, Any], items: object, found: object) -> None:
        """Keep the seconds of a shard; see `attribution.runs.work.OnShard`.

        Raises:
            OutputError: The disk refuses.
        """
        numbers = [each["item"] for each in record["items"]]
        seconds = {str(number): self._seconds.pop(number) for number in numbers if number in self._seconds}
        place = files.folder(folder.root / _COSTS) / f"{numbers[0]:08d}.json"
        files.write(place, json.dumps(seconds, sort_keys=True).encode())

    def _scored(self, batch: Batch, rows: range) -> Scored:
        chosen = slice(rows.start, rows.stop)
        part = Batch(
            batch.inputs[chosen], None if batch.targets is None else batch.targets[chosen], batch.items[chosen]
        )
        names = [str(item) for item in part.items]
        inputs = Inputs.of(part.inputs)
        return score_photos(self.question, self.model, inputs, asked_of(self.target, part), names, part.items[0])


def evaluate(
    model: nn.Module,
    dataset: Any,
    question: Question,
    target: Asked,
    *,
    names: Iterable[str] | None,
    batch_size: int,
    out: Path,
    title: str,
) -> Table:
    """Begin or go on with an evaluation of a data set; the arguments are those of `attribution.metrics.evaluate`.

    Raises:
        InputError: The data set gives no examples by index; see also `attribution.runs.run`.
        OutputError: See `attribution.runs.run`.
        KeyboardInterrupt: A signal ended it, after the shard that was under way.
    """
    for each in question.contestants.values():
        if isinstance(each, Technique) and each.needs_target:
            check_target(target, each)
    items = dataset if isinstance(dataset, Items) else Examples(dataset, None if names is None else [*names])
    work = Scoring(model, question, target)
    plan = Plan(batch_size=batch_size, progress=question.execution.progress)
    outcome = carry_out(work, items, out, plan, on_shard=work.costs)
    if outcome.signal is not None:
        raise KeyboardInterrupt(signal.Signals(outcome.signal).name)
    return table(outcome.root, work, items, title)


def table(root: Path, work: Scoring, items: Items, title: str = "") -> Table:
    """What an evaluation found of the photos that are done.

    Args:
        root: Its folder.
        work: Which it was.
        items: Of which the first that can be had is asked what each technique costs, once.
        title: Of the figure.

    Raises:
        InputError: No photo is done.
        OutputError: A file cannot be read or written.
    """
    folder = RunFolder.read(root)
    rows, curves = read(folder)
    found = work.question.table(rows, curves, title)
    place = root / _COSTS / _FORWARDS
    if not place.exists():
        item = photo_names(folder).index(found.photos[0])
        shown = items[item]
        batch = Batch(shown.inputs[None], None if shown.target is None else (shown.target,), (item,))
        device = next((each.device for each in work.model.parameters()), shown.inputs.device)
        inputs = Inputs.of(batch.on(device).inputs)
        counts = counted(work.question, work.model, inputs, asked_of(work.target, batch), found.photos[0])
        files.write(files.folder(place.parent) / _FORWARDS, json.dumps({row.map: row.value for row in counts}).encode())
    costs: dict[str, float] = _json(place)
    counts = [Row(found.photos[0], "", name, FORWARDS, "", value) for name, value in costs.items()]
    return work.question.table([*rows, *counts], curves, title)


def read(folder: RunFolder) -> tuple[list[Row], list[CurveRow]]:
    """The rows of the photos that are done, in their order.

    Raises:
        InputError: The folder holds a run of something else.
        OutputError: A file cannot be read.
    """
    if folder.settings.get("kind") != KIND:
        raise InputError(f"the run in {named(folder.root)} holds {folder.settings.get('kind')!r}, no scores")
    rows: list[Row] = []
    curves: list[CurveRow] = []
    seconds: dict[str, dict[str, float]] = {}
    for path in sorted((folder.root / _COSTS).glob("[0-9]*.json")):
        seconds |= _json(path)
    names = photo_names(folder)
    for number in folder.present():
        record, tensors = folder.read_shard(number)
        for each in record["items"]:
            if each["part"] is None:
                continue
            name, header = names[each["item"]], record["parts"][each["part"]]
            times = seconds.get(str(each["item"]), {})
            rows += [Row(name, "", map_, SECONDS, "", value) for map_, value in times.items()]
            rows += [Row(name, r["target"], r["map"], r["metric"], r["variant"], r["value"]) for r in each["rows"]]
            for k, (map_, baselines, removed) in enumerate(header["curves"]):
                most, least = (tensors[f"{each['part']}/{way} {k}"][each["row"]] for way in ("most", "least"))
                curves += Points(map_, baselines, removed, most, least).rows(name, header["labels"][each["row"]])
    return rows, curves


def maps(folder: RunFolder, item: int) -> dict[str, Tensor]:
    """The maps of a photo as they were ordered, (T or 1, *cells) by name.

    Raises:
        OutputError: Its shard cannot be read.
    """
    number = item // folder.batch_size
    record, tensors = folder.read_shard(number)
    each = record["items"][item - folder.items(number)[0]]
    names = record["parts"][each["part"]]["maps"]
    return {name: tensors[f"{each['part']}/map {k}"][each["row"]] for k, name in enumerate(names)}


def photo_names(folder: RunFolder) -> list[str]:
    """What the photos of a table are called; a name that stands twice has its number behind it."""
    often = Counter(folder.names)
    return [name if often[name] == 1 else f"{name} ({item})" for item, name in enumerate(folder.names)]


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise OutputError(f"{named(path)} cannot be read: {error}; remove it") from error
    return found


def _neighbours(batch: Batch, keep: Iterable[int]) -> Iterator[range]:
    """Rows that are kept and follow one another in the batch and in the run."""
    start: int | None = None
    last = -1
    for row in keep:
        if start is not None and (row != last + 1 or batch.items[row] != batch.items[last] + 1):
            yield range(start, last + 1)
            start = None
        start = row if start is None else start
        last = row
    if start is not None:
        yield range(start, last + 1)
