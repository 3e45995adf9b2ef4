"""``python -m benchmarks.report RESULTS.json…``: check results files, write ``docs/benchmarks.md`` and its pictures."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import charts, launches, summary
from benchmarks.schema import AgreementEntry, Result, ResultsFile, read

_HEAD = """# Benchmarks

This page is written by `uv run python -m benchmarks.report {files}`; nothing in it is typed by hand.
How rows are measured, and how to run them yourself: [benchmarks/README.md](../benchmarks/README.md).

Ratios are medians of interleaved pairs in one process, with a 95 % bootstrap interval. A ratio above 1 means that
the row is faster than its opponent. Rows whose answers disagree are not timed, so every row below agrees.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, check, write; 0, or 2 with a line that says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="written by pytest --benchmark-json, or launches")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of benchmarks.md (default: docs)")
    options = parser.parse_args(arguments)
    try:
        counted = {path: found for path in options.files if (found := launches.read(path)) is not None}
        files = [read(path) for path in options.files if path not in counted]
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    pictures = options.out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    named = " ".join(f"benchmarks/results/{path.name}" for path in options.files)
    page = "\n".join(
        [
            _HEAD.format(files=named),
            summary.section(files, pictures),
            *(launches.section(*found) for found in counted.values()),
            "## All rows\n",
            *(_section(file, pictures) for file in files),
        ]
    )
    (options.out / "benchmarks.md").write_text(page)
    return 0


def _section(file: ResultsFile, pictures: Path) -> str:
    first = file.results[0].row
    cpu = file.machine.get("cpu", {})
    lines = [
        f"### {file.name}",
        "",
        f"{file.date} · {first.device} · {cpu.get('brand_raw', 'unknown CPU')}, {cpu.get('count', '?')} cores · "
        + " · ".join(f"{key} {value}" for key, value in first.environment.items()),
        "",
        _verdict(file.results),
        "",
    ]
    if charts.growth(file, pictures / f"benchmark-growth-{file.name}.png", f"{file.name}, SqueezeNet 1.1"):
        lines += [f"![Growth](pictures/benchmark-growth-{file.name}.png)", ""]
    for technique in dict.fromkeys(result.row.technique for result in file.results):
        rows = [result for result in file.results if result.row.technique == technique]
        lines += ["<details>", f"<summary>{technique}: {len(rows)} rows</summary>", "", *_table(file, rows), ""]
        lines += ["</details>", ""]
    return "\n".join(lines)


def _verdict(results: Sequence[Result]) -> str:
    races = [r.duel for r in results if r.duel]
    wins, losses = sum(race.low > 1 for race in races), sum(race.high < 1 for race in races)
    worst: dict[str, float] = {}
    for result in results:
        worst[result.row.technique] = max(worst.get(result.row.technique, 0.0), result.row.agreement.scaled)
    differences = ", ".join(f"{name} {value:.1e}" for name, value in worst.items())
    return (
        f"{len(results)} rows, {_agreed(results)}. Of {len(races)} races our backends won {wins}, lost {losses}, and "
        f"{len(races) - wins - losses} are undecided (the interval holds 1). "
        f"Largest difference between backends, as a part of the map's maximum: {differences}."
    )


def _agreed(results: Sequence[Result]) -> str:
    unknown = sum(_difference(result.row.agreement) == "below tolerance" for result in results)
    if not unknown:
        return "all agree"
    return f"none differs (of {unknown} all maps are below the tolerance, so that no difference could be told)"


def _difference(agreement: AgreementEntry) -> str:
    """Against what was allowed; maps of which no value is above that cannot be told apart."""
    if not agreement.pairs:
        return "one backend"
    if agreement.pairs == agreement.degenerate:
        return "below tolerance"
    return f"{agreement.scaled:.1e} of {agreement.tolerance:.0e}"


def _table(file: ResultsFile, results: Sequence[Result]) -> list[str]:
    head = (
        "question | model | batch | dtype | backend | tier | seconds | ratio | forwards | GMAC | peak MiB | difference"
    )
    lines = [f"| {head} |", "|" + " --- |" * (head.count("|") + 1)]
    stated = list(dict.fromkeys(r.row.agreement.stated for r in results if r.row.agreement.stated))
    for result in results:
        row = result.row
        note = f" [{stated.index(row.agreement.stated) + 1}]" if row.agreement.stated else ""
        peak = "" if result.peak_bytes is None else f"{result.peak_bytes / 2**20:.0f}"
        scaled = f" (× {row.scale:.3g})" if row.scale > 1 else ""
        cells = [
            row.question,
            row.model,
            str(row.batch),
            row.dtype,
            row.backend,
            _tier(result),
            f"{file.seconds(result):.3g}{scaled}",
            _ratio(result),
            str(row.counts.forwards),
            f"{row.counts.macs / 1e9:.3g}",
            peak,
            _difference(row.agreement) + note,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"- [{number}] {text}" for number, text in enumerate(stated, start=1))] if stated else []
    lines += [
        "",
        "`(× n)`: timed on fewer windows or targets of equal cost and scaled by n; forwards, GMAC and peak memory are "
        "those of the question on which agreement was checked. A `floor` row is the network alone, scaled to the work "
        "that no library can do without; its ratio says how far above it we are.",
    ]
    return lines


def _tier(result: Result) -> str:
    sweep = result.row.sweep
    return f"{result.row.tier}, {min(sweep, key=sweep.__getitem__)} per forward" if sweep else result.row.tier


def _ratio(result: Result) -> str:
    race = result.row.race
    if race is None:
        return "reference"
    noisy = ", noisy" if race.disturbed else ""
    found = f"{race.ratio:.2f} [{race.low:.2f}, {race.high:.2f}]"
    if result.row.tier == "floor":
        return f"{race.against} takes {found} times this{noisy}"
    return f"{found} vs {race.against}{noisy}"


if __name__ == "__main__":
    raise SystemExit(main())
