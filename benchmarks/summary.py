"""What a user decides by: per technique and opponent, how many times as fast we are, on which machine."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks import charts
from benchmarks.schema import Duel, ResultsFile

_WORDS = {
    "captum": "our captum backend",
    "captum.attr (default)": "Captum as it is called",
    "captum.attr (tuned)": "Captum at its best batch",
    "captum.attr (compiled)": "Captum, model compiled",
    "dense engine (default)": "our own dense engine",
}

Races = dict[tuple[str, str], dict[str, list[Duel]]]
"""By technique and opponent, then by kind of device."""


def races(files: Sequence[ResultsFile]) -> Races:
    """Every race but those that draw growth. A question that stands in several files counts once, from the newest."""
    seen: set[tuple[str, ...]] = set()
    found: Races = {}
    for file in sorted(files, key=lambda file: file.date, reverse=True):
        for result in file.results:
            duel, row = result.duel, result.row
            if duel is None or row.question.startswith(charts.SCALING):
                continue
            products = str(row.environment.get("tf32", ""))
            key = (row.technique, row.question, row.model, str(row.batch), row.dtype, row.device, products)
            if (same := (*key, duel.ours, duel.other)) in seen:
                continue
            seen.add(same)
            other = _WORDS.get(duel.other, duel.other.removesuffix(" (default)").replace(" (tuned)", ", tuned"))
            found.setdefault((row.technique, other), {}).setdefault(row.device, []).append(duel)
    return dict(sorted(found.items()))


def section(files: Sequence[ResultsFile], pictures: Path) -> str:
    """The first section of the page: a table, and a chart for each technique."""
    found = races(files)
    devices = sorted({device for each in found.values() for device in each})
    lines = [
        "## In short",
        "",
        "How many times as fast: median over the questions asked (smallest to largest), and races won / undecided / "
        "lost. A race is undecided where its interval holds 1.",
        "",
        f"| technique | against | {' | '.join(devices)} |",
        "| --- | --- |" + " --- |" * len(devices),
    ]
    for (technique, other), by_device in found.items():
        cells = [_cell(by_device.get(device, [])) for device in devices]
        lines.append(f"| {technique} | {other} | {' | '.join(cells)} |")
    for technique in dict.fromkeys(technique for technique, _ in found):
        mine = {other: by_device for (each, other), by_device in found.items() if each == technique}
        charts.strip(mine, pictures / f"benchmark-{technique}.png", technique)
        lines += ["", f"![{technique}](pictures/benchmark-{technique}.png)"]
    return "\n".join([*lines, ""])


def _cell(duels: Sequence[Duel]) -> str:
    if not duels:
        return ""
    ratios = [duel.ratio for duel in duels]
    won, lost = sum(duel.low > 1 for duel in duels), sum(duel.high < 1 for duel in duels)
    span = f" ({min(ratios):.2g} to {max(ratios):.2g})" if len(ratios) > 1 else ""
    return f"**{median(ratios):.2g}**{span}, {won} / {len(duels) - won - lost} / {lost}"
