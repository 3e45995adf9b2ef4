"""Commands on folders: run, show, evaluate."""

from pathlib import Path
from typing import Annotated

import typer

from attribution.cli.commands.app import app, refuse
from attribution.cli.commands.options import (
    MODEL,
    OUT,
    Backend,
    Device,
    Labels,
    Layers,
    Mean,
    Model,
    Out,
    Output,
    Parameters,
    Score,
    Size,
    Std,
    Stretch,
    Targets,
    Weights,
)
from attribution.cli.reading import Typed

BatchSize = Annotated[str, typer.Option(metavar="N|auto", help="Images of one file and forward.")]
Devices = Annotated[int, typer.Option(metavar="N", help="Processes on this machine, one per GPU.")]
Workers = Annotated[int, typer.Option(metavar="N", help="Processes that read images, for each that computes.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


@app.command(epilog="Example: attribution run photos -t grad_cam -o maps --overlay")
def run(
    source: Annotated[Path, typer.Argument(metavar="FOLDER|LIST.csv", show_default=False)],
    technique: Annotated[
        list[str], typer.Option("--technique", "-t", metavar="NAME", help="Repeatable; `attribution list` has all.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the run; the same goes on.")],
    backend: Backend = "hooks",
    model: Model = MODEL,
    weights: Weights = None,
    layer: Layers = None,
    target: Targets = None,
    score: Score = None,
    output: Output = None,
    param: Parameters = None,
    device: Device = "auto",
    stretch: Stretch = False,
    batch_size: BatchSize = "auto",
    devices: Devices = 1,
    nodes: Annotated[int, typer.Option(metavar="M", help="Machines.")] = 1,
    workers: Workers = 0,
    threads: Annotated[int | None, typer.Option(metavar="N", help="Of torch; default: as many as it has.")] = None,
    precision: Annotated[str, typer.Option(metavar="32|bf16-mixed|16-mixed", help="Of the forwards.")] = "32",
    labels: Labels = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also a PNG of each heatmap over its image.")] = False,
    quiet: Quiet = False,
) -> None:
    """Techniques on every image of a folder or a list; the same command goes on with a run that ended."""
    reading = Typed(labels, size, mean, std)
    refuse(technique, param or [], model=model, weights=weights, reading=reading)
    from attribution.cli import run
    from attribution.cli.setting import Setting, chosen_device
    from attribution.errors import InputError
    from attribution.runs.plan import Plan

    plan = Plan(
        batch_size=_size(batch_size),
        devices=devices,
        num_nodes=nodes,
        workers=workers,
        threads=threads,
        progress=not quiet,
    )
    asked = run.parse(technique, backend, layer or [], target or [], param or [], score, output)
    if not source.exists():
        raise InputError(f"no folder or list {str(source)!r}; give one")
    place = chosen_device(device)
    setting = Setting.of(model, weights, "cpu", stretch, reading)
    code = run.run(
        source,
        asked,
        setting,
        backend,
        out,
        plan,
        device=place,
        precision=precision,
        overlay=overlay,
    )
    raise typer.Exit(code)


@app.command(epilog="Example: attribution show maps")
def show(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="What --out named.", show_default=False)],
    technique: Annotated[
        str | None, typer.Option("--technique", "-t", metavar="NAME", help="Default: all of the run.")
    ] = None,
    most: Annotated[int, typer.Option(metavar="N", min=1, help="Maps on the page.")] = 40,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.png", help="Default: sheet.png in the run.")
    ] = None,
) -> None:
    """A page with the maps of a run; over their images where it had --overlay."""
    from attribution import plots, runs

    path = folder / "sheet.png" if out is None else out
    plots.save(runs.sheet(runs.open(folder), technique=technique, most=most), path)
    typer.echo(path)


@app.command(epilog="Example: attribution evaluate photos -t grad_cam -t layer_cam")
def evaluate(
    folder: Annotated[Path | None, typer.Argument(metavar="FOLDER|LIST.csv", show_default=False)] = None,
    technique: Annotated[
        list[str] | None,
        typer.Option("--technique", "-t", metavar="NAME", help="Repeatable. Default: grad_cam.", show_default=False),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Repeatable; the first one ranks. Default: srg, insertion, deletion. Others: infidelity, "
            "max_sensitivity, randomisation, completeness_gap, seed_spread, backend_difference, float64_difference, "
            "road, road_lerf, road_morf.",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="mean|blur|noise|linear|NUMBER",
            help="What removed cells show. Default: mean, blur and noise.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Of a curve.")] = 16,
    sample: Annotated[
        int | None, typer.Option(metavar="N", help="So many photos at random. Default: all.", show_default=False)
    ] = None,
    backend: Backend = "hooks",
    model: Model = MODEL,
    weights: Weights = None,
    target: Targets = None,
    score: Score = None,
    output: Output = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="TECHNIQUE.NAME=VALUE", help="In TOML: -p occlusion.window=48."),
    ] = None,
    device: Device = "auto",
    stretch: Stretch = False,
    labels: Labels = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    batch_size: BatchSize = "auto",
    devices: Devices = 1,
    workers: Workers = 0,
    out: Out = OUT,
    quiet: Quiet = False,
) -> None:
    """Which technique to trust, by a folder of photos (default: the sample photos): a table, a figure, CSV files.

    The same command goes on where the last one ended. Photos that cannot be read are listed in failures.csv.
    """
    reading = Typed(labels, size, mean, std)
    refuse(technique or ["grad_cam"], param or [], model=model, weights=weights, reading=reading)
    from attribution.cli import evaluate
    from attribution.cli.setting import Setting, chosen_device
    from attribution.runs.plan import Plan

    plan = Plan(batch_size=_size(batch_size), devices=devices, workers=workers, progress=not quiet)
    asked = evaluate.parse(
        folder,
        technique or ["grad_cam"],
        metric or ["srg", "insertion", "deletion"],
        baseline or [],
        backend,
        target or [],
        param or [],
        sample,
        steps,
        score,
        output,
    )
    place = chosen_device(device)
    raise typer.Exit(evaluate.run(asked, Setting.of(model, weights, "cpu", stretch, reading), out, plan, device=place))


def _size(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() else text
