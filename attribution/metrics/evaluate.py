"""``evaluate``: which technique to trust on a model, by its photos."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from tqdm.auto import tqdm

from attribution.errors import InputError
from attribution.inputs import checks
from attribution.inputs.inputs import Inputs
from attribution.isolation.context import unwrap
from attribution.metrics import kept
from attribution.metrics.baselines import Baselines
from attribution.metrics.faithfulness import SRG, Deletion, Insertion
from attribution.metrics.metric import Metric
from attribution.metrics.photos import Contestant, Question, by_layer, counted, score_photos
from attribution.metrics.rows import CurveRow, Row
from attribution.metrics.table import Table
from attribution.running.execution import Execution
from attribution.scores.classes import ClassScore
from attribution.scores.reading import Asked, score_of
from attribution.technique import Technique
from attribution.techniques.parameters import integer

AT_ONCE = 8
"""Photos whose maps are made and scored together, unless the user says."""


def evaluate(
    model: nn.Module,
    inputs: Any,
    techniques: Sequence[Technique] | Mapping[str, Contestant],
    *,
    metrics: Sequence[Metric] = (SRG(), Insertion(), Deletion()),
    baselines: Baselines = None,
    target: Asked = None,
    backend: str = "hooks",
    names: Iterable[str] | None = None,
    batch_size: int = AT_ONCE,
    seed: int = 0,
    execution: Execution = Execution(),
    out: str | Path | None = None,
    title: str = "",
) -> Table:
    """Score techniques on a sample of photos, beside controls that know nothing of the model.

    Every photo is explained by every technique, for the same target, and scored by every metric. Photos are drawn from
    what the model will meet; the intervals of the table say what such a sample can tell.

    Args:
        model: As for `explain`; as found on every exit.
        inputs: As for `explain`; or an iterable of batches, such as a ``DataLoader``: of a batch that is a tuple or
            list the first item is shown to the model.
        techniques: Several, or a mapping by name; in the mapping also functions of `Inputs` that give maps
            (N, T, *cells) from elsewhere. A technique of several layers is scored layer by layer.
        metrics: The first is the headline, by which techniques are ranked.
        baselines: What stands in place of removed cells: see `attribution.metrics.baselines`.
        target: As for `explain`; ``None``: each photo's prediction. With an iterable it is common to all photos:
            an int, ``[[3, 5]]`` for two classes, or a score without rows.
        backend: Who computes the techniques.
        names: Of the photos, in their order; ``None``: their numbers.
        batch_size: Photos at once.
        seed: Of all that is drawn; what is drawn for a photo goes by its place.
        execution: Of maps and scores.
        out: A folder: the evaluation is a run there (see `attribution.runs`), so that the same call goes on where it
            ended, however it ended. ``inputs`` then give an example by its index: a tensor or a data set.
        title: Of the figure.

    Raises:
        InputError: There are no photos, fewer or equal names, or no technique that explains a score.
        OutputError: The folder cannot be used, or holds another evaluation.
        AttributionError: As `explain`.
    """
    question = Question(
        contestants=contestants(techniques),
        metrics=tuple(metrics),
        baselines=baselines,
        backend=backend,
        seed=integer("evaluate", "seed", seed, least=0),
        execution=execution,
    )
    size = integer("evaluate", "batch_size", batch_size, least=1)
    if out is not None:
        return kept.evaluate(model, inputs, question, target, names=names, batch_size=size, out=Path(out), title=title)
    rows: list[Row] = []
    curves: list[CurveRow] = []
    with tqdm(desc="evaluate", unit="photo", leave=False) if execution.progress else nullcontext() as bar:
        for first, part, score, own in _parts(model, inputs, target, names, size, execution):
            found = score_photos(question, model, part, score, own, first)
            rows += [*found.costs, *found.rows]
            curves += [row for n, name in enumerate(own) for row in found.points(n, name)]
            if first == 0:
                rows += counted(question, model, part[:1], score.rows(slice(0, 1)) if len(part) > 1 else score, own[0])
            if bar is not None:
                bar.update(len(own))
    return question.table(rows, curves, title)


def contestants(techniques: Any) -> dict[str, Contestant]:
    """Contestants by name, one for each layer."""
    if isinstance(techniques, Technique):
        techniques = (techniques,)
    if isinstance(techniques, Mapping):
        given = {str(name): each for name, each in techniques.items()}
    else:
        given = {}
        for each in techniques:
            name = getattr(each, "name", None)
            if not isinstance(each, Technique) or name is None:
                raise InputError(f"{each!r} is no technique; give one such as GradCAM(), or a mapping by name")
            taken = sum(known.partition(" ")[0] == name for known in given)
            given[name if not taken else f"{name} {taken + 1}"] = each
    found: dict[str, Contestant] = {}
    for name, each in given.items():
        found |= by_layer(name, each) if isinstance(each, Technique) else {name: each}
    return found


def _parts(
    model: nn.Module, inputs: Any, target: Asked, names: Iterable[str] | None, size: int, execution: Execution
) -> Iterator[tuple[int, Inputs, Any, list[str]]]:
    """Place of the first photo, some photos, their target and names."""
    inner, first, given = unwrap(model), 0, None if names is None else iter(names)
    autocast, used = execution.autocast is not None, set[str]()
    whole = isinstance(inputs, Tensor | tuple | list | Mapping | Inputs)
    batches = [inputs] if whole else inputs
    if not whole and not isinstance(inputs, Iterable):
        raise InputError(f"inputs are {type(inputs).__name__}; give what explain takes, or an iterable of batches")
    for batch in batches:
        shown = checks.check(
            batch if whole or not isinstance(batch, tuple | list) else batch[0], inner, autocast=autocast
        )
        asked = score_of(target, ClassScore())
        if not whole and isinstance(asked, ClassScore) and isinstance(asked.target, Tensor) and len(asked.target) == 1:
            asked = asked.having(target=asked.target.expand(len(shown), *asked.target.shape[1:]))
        asked = asked.check(len(shown))
        for start in range(0, len(shown), size):
            rows = slice(start, min(start + size, len(shown)))
            count = rows.stop - rows.start
            places = range(first, first + count)
            own = [str(name) for _, name in zip(places, places if given is None else given, strict=False)]
            if len(own) < count or used & {*own} or len({*own}) < count:
                raise InputError(f"there are {len(used | {*own})} different names for more photos; name each once")
            used |= {*own}
            yield first, shown[rows], asked.rows(rows) if count < len(shown) else asked, own
            first += count
