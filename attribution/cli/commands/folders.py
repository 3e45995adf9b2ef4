"""Commands on folders: run, show, evaluate, export."""

from pathlib import Path
from typing import Annotated

import typer

from attribution.cli.commands.app import FOLDERS, NO_RUN, app, refuse, refuse_folder, refuse_source
from attribution.cli.commands.options import (
    ASKED,
    MODEL,
    OUT,
    RESULTS,
    RUNNING,
    TECHNIQUES,
    Backend,
    Device,
    FolderOrList,
    Labels,
    Layers,
    Mean,
    Model,
    Out,
    Output,
    Parameters,
    RunFolder,
    Score,
    Size,
    Std,
    Stretch,
    Targets,
    Techniques,
    Weights,
)
from attribution.cli.known import known_techniques
from attribution.cli.reading import Typed
from attribution.errors import InputError

BatchSize = Annotated[
    str, typer.Option(metavar="N|auto", help="Images of one file and forward.", rich_help_panel=RUNNING)
]
Devices = Annotated[
    int, typer.Option(metavar="N", help="Processes on this machine, one per GPU.", rich_help_panel=RUNNING)
]
Workers = Annotated[
    int,
    typer.Option(metavar="N", help="Processes that read images, for each that computes.", rich_help_panel=RUNNING),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=RUNNING)]


@app.command(rich_help_panel=FOLDERS, epilog="Example: attribution run photos -t grad_cam -o maps --overlay")
def run(
    source: Annotated[Path, FolderOrList],
    technique: Annotated[
        list[str],
        typer.Option(
            "--technique",
            "-t",
            metavar="NAME",
            help="Repeatable; `attribution list` has all.",
            autocompletion=known_techniques,
            rich_help_panel=ASKED,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder of the run; one that was begun goes on.",
            rich_help_panel=RESULTS,
        ),
    ],
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
    nodes: Annotated[int, typer.Option(metavar="M", help="Machines that share the run.", rich_help_panel=RUNNING)] = 1,
    workers: Workers = 0,
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", help="Threads of torch; default: as many as it has.", rich_help_panel=RUNNING),
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="32|bf16-mixed|16-mixed", help="Of the forwards.", rich_help_panel=RUNNING)
    ] = "32",
    labels: Labels = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    overlay: Annotated[
        bool,
        typer.Option("--overlay", help="Also a PNG of each heatmap over its image.", rich_help_panel=RESULTS),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Techniques on every image of a folder or a list; the same command goes on with a run that ended."""
    reading = Typed(labels, size, mean, std)
    refuse(
        technique,
        param or [],
        model=model,
        weights=weights,
        reading=reading,
        layers=layer or [],
        backend=backend,
        device=device,
    )
    refuse_source(source)
    from attribution.cli import run
    from attribution.cli.setting import Setting, chosen_device
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


@app.command(rich_help_panel=FOLDERS, epilog="Example: attribution show maps")
def show(
    folder: RunFolder,
    technique: Annotated[
        str | None,
        typer.Option("--technique", "-t", metavar="NAME", help="Show this one. Default: all.", show_default=False),
    ] = None,
    most: Annotated[int, typer.Option(metavar="N", min=1, help="Maps on the page.")] = 40,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE.png", help="The page. Default: sheet.png in the run.", show_default=False
        ),
    ] = None,
) -> None:
    """A page with the maps of a run; over their images where it had --overlay."""
    refuse_folder(folder, NO_RUN)
    from attribution import plots, runs

    path = folder / "sheet.png" if out is None else out
    plots.save(runs.sheet(runs.open(folder), technique=technique, most=most), path)
    typer.echo(path)


@app.command(rich_help_panel=FOLDERS, epilog="Example: attribution evaluate photos -t grad_cam -t layer_cam")
def evaluate(
    folder: Annotated[Path | None, FolderOrList] = None,
    technique: Techniques = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Repeatable; the first one ranks. Default: srg, insertion, deletion. Others: infidelity, "
            "max_sensitivity, randomisation, completeness_gap, seed_spread, backend_difference, float64_difference, "
            "road, road_lerf, road_morf.",
            show_default=False,
            rich_help_panel=ASKED,
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="mean|blur|noise|linear|NUMBER",
            help="What removed cells show; repeatable. Default: mean, blur and noise.",
            show_default=False,
            rich_help_panel=ASKED,
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(metavar="N", help="Steps in which cells are removed.", rich_help_panel=ASKED)
    ] = 16,
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="So many photos, drawn at random. Default: all.",
            show_default=False,
            rich_help_panel=ASKED,
        ),
    ] = None,
    backend: Backend = "hooks",
    model: Model = MODEL,
    weights: Weights = None,
    target: Targets = None,
    score: Score = None,
    output: Output = None,
    param: Parameters = None,
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
    names = technique or TECHNIQUES
    refuse(names, param or [], model=model, weights=weights, reading=reading, backend=backend, device=device)
    if folder is not None:
        refuse_source(folder)
    from attribution.cli import evaluate
    from attribution.cli.setting import Setting, chosen_device
    from attribution.runs.plan import Plan

    plan = Plan(batch_size=_size(batch_size), devices=devices, workers=workers, progress=not quiet)
    asked = evaluate.parse(
        folder,
        names,
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


@app.command(rich_help_panel=FOLDERS, epilog="Example: attribution export maps photos --to fiftyone")
def export(
    folder: RunFolder,
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER|LIST.csv", help="What the run went over.", show_default=False)
    ],
    to: Annotated[str, typer.Option("--to", metavar="fiftyone", help="The program that gets it.")] = "fiftyone",
    model: Model = MODEL,
    weights: Weights = None,
    stretch: Stretch = False,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the data set. Default: the run's.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set of that name.")] = False,
) -> None:
    """A run as a data set of FiftyOne; the model and how photos reach it as they were given to `attribution run`."""
    if to != "fiftyone":
        raise InputError(f"--to {to!r} is not known; give fiftyone")
    refuse_folder(folder, NO_RUN)
    refuse_source(source)
    reading = Typed(None, size, mean, std)
    refuse(model=model, weights=weights, reading=reading)
    from attribution import runs
    from attribution.cli.run import items_of
    from attribution.cli.setting import Setting
    from attribution.runs import fiftyone

    fiftyone.library()
    found = runs.open(folder)
    setting = Setting.of(model, weights, "cpu", stretch, reading)
    items = items_of(source, setting, folder)
    made = fiftyone.to_fiftyone(found, items, setting.loaded.picture, name=name, overwrite=overwrite)
    typer.echo(f"{made.name}  {len(made)} samples · fiftyone app launch {made.name}")


def _size(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() else text
