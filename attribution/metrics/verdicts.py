"""What an evaluation says, in a table and in sentences."""

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np

from attribution.metrics.statistics import FEWEST, half_sample_tau, kendall_tau

if TYPE_CHECKING:
    from attribution.metrics.table import Table


def text(table: "Table") -> str:
    """The table, and the sentences below it."""
    return grid(table) + "\n\n" + "\n".join(f"- {sentence}" for sentence in verdicts(table)) + "\n"


def grid(table: "Table") -> str:
    """A Markdown table of means with intervals, a line per map, and a line on how to read it."""
    heads, *lines = cells(table, [*table.better])
    lines = [(f"*{name}*" if name in table.controls else name, *rest) for name, *rest in lines]
    drawn = "\n".join("| " + " | ".join(line) + " |" for line in [heads, ("---",) * len(heads), *lines])
    count = len(table.photos)
    arrows = ", ".join(f"{metric} {'↑' if better == 'higher' else '↓'}" for metric, better in table.better.items())
    drawn_from = f"{count} photo{'s' * (count != 1)}; mean (95 % interval, bootstrap over photos)"
    note = f"{drawn_from}; {arrows}; controls in italics."
    return f"{drawn}\n\n{note}"


def cells(table: "Table", metrics: Sequence[str]) -> list[tuple[str, ...]]:
    """Heads, then a line per map: contestants by the headline, controls last."""
    columns = [(metric, variant) for metric in metrics for variant in _variants(table, metric)]
    costs = {"forwards a photo": table.forwards(), "seconds a photo": table.seconds()}
    means = {column: table.means(*column) for column in columns}
    order = [name for name in _ranking(table) if name in table.contestants]
    order += [name for name in table.contestants if name not in order] + table.controls
    found = [("map", *(" ".join(filter(None, column)) for column in columns), *costs)]
    for name in order:
        values = [str(means[column][name]) if name in means[column] else "" for column in columns]
        found.append((name, *values, *(_short(cost.get(name)) for cost in costs.values())))
    return found


def verdicts(table: "Table") -> list[str]:
    """Sentences; see `Table.verdicts`."""
    if not _variants(table, table.headline):
        return []
    ranking = _ranking(table)
    ranked = [name for name in ranking if name in table.contestants]
    found = [_against_controls(table, name) for name in ranked if table.controls]
    if len(table.photos) < FEWEST:
        found.insert(0, f"With fewer than {FEWEST} photos no two maps are told apart.")
    found += [f"{table.versus(first, second)}." for first, second in pairwise(ranked)]
    return [*found, *_stability(table, ranking)]


def _variants(table: "Table", metric: str) -> list[str]:
    return list(dict.fromkeys(row.variant for row in table.rows if row.metric == metric))


def _ranking(table: "Table") -> list[str]:
    return table.ranking() if _variants(table, table.headline) else []


def _against_controls(table: "Table", name: str) -> str:
    """Better than a control is what is better under every variant."""
    metric, variants = table.headline, table.variants(table.headline)
    better, worse, open_ = [], [], []
    for control in table.controls:
        under = {variant: table.versus(name, control, metric, variant) for variant in variants}
        told = {variant: each.told_apart and np.sign(each.difference.mean) for variant, each in under.items()}
        if all(each == 1 for each in told.values()):
            better.append(control)
        elif all(each == -1 for each in told.values()):
            worse.append(control)
        else:
            weak = [variant for variant, each in told.items() if each != 1 and variant]
            open_.append(f"{control} ({', '.join(weak)})" if weak and len(weak) < len(variants) else control)
    parts = [f"better than {_listed(better)}"] * bool(better)
    parts += [f"no better than {_listed(open_)}"] * bool(open_)
    parts += [f"worse than {_listed(worse)}"] * bool(worse)
    costs = {"forwards": table.forwards().get(name), "seconds": table.seconds().get(name)}
    cost = _listed([f"{_short(value)} {unit}" for unit, value in costs.items() if value is not None])
    return f"{name} by {metric}: {', '.join(parts)}.{f' {cost} a photo.' if cost else ''}"


def _stability(table: "Table", ranking: list[str]) -> Iterator[str]:
    """Whether the ranking goes by the baseline or by the photos."""
    metric, variants = table.headline, table.variants(table.headline)
    if len(ranking) < 2:
        return
    means = {each: np.array([value.mean() for value in table.values(metric, each).values()]) for each in variants}
    taus = {pair: kendall_tau(means[pair[0]], means[pair[1]]) for pair in combinations(variants, 2)}
    if taus:
        least = min(taus, key=lambda pair: taus[pair])
        yield (
            f"Kendall's tau between rankings by {metric} under two baselines: {np.mean([*taus.values()]):.2f} on "
            f"average, least {taus[least]:.2f} ({least[0]}, {least[1]})."
        )
    tau = half_sample_tau(np.stack([*table.values(metric).values()], axis=1), seed=table.seed)
    if not np.isnan(tau):
        yield f"Kendall's tau between rankings of two halves of the photos: {tau:.2f} on average."


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}" if value < 100 else f"{value:.0f}"
