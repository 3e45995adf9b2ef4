"""The command that hands a run to other programs."""

from pathlib import Path
from typing import Annotated

import typer

from attribution.cli.commands.app import app, refuse
from attribution.cli.commands.options import MODEL, Model, Stretch, Weights


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="What --out named.", show_default=False)],
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER|LIST.csv", help="What the run went over.", show_default=False)
    ],
    to: Annotated[str, typer.Option("--to", metavar="fiftyone", help="The program.")] = "fiftyone",
    model: Model = MODEL,
    weights: Weights = None,
    stretch: Stretch = False,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the data set; default: the folder's.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set of that name.")] = False,
) -> None:
    """A run as a data set of FiftyOne; model, weights and stretch as they were given to `attribution run`."""
    from attribution.errors import InputError

    if to != "fiftyone":
        raise InputError(f"--to {to!r} is not known; give fiftyone")
    refuse(model=model, weights=weights)
    from attribution import runs
    from attribution.cli.run import items_of
    from attribution.cli.setting import Setting
    from attribution.runs import fiftyone

    fiftyone.library()
    found = runs.open(folder)
    if not source.exists():
        raise InputError(f"no folder or list {str(source)!r}; give what the run went over")
    setting = Setting.of(model, weights, "cpu", stretch)
    items = items_of(source, setting, folder)
    made = fiftyone.to_fiftyone(found, items, setting.loaded.picture, name=name, overwrite=overwrite)
    typer.echo(f"{made.name}  {len(made)} samples · fiftyone app launch {made.name}")
