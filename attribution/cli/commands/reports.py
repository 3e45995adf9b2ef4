"""The command that writes a page: report."""

from pathlib import Path
from typing import Annotated

import typer

from attribution import paths
from attribution.cli.commands.app import IMAGES, NO_RUN, app, refuse, refuse_folder
from attribution.cli.commands.options import (
    ASKED,
    MODEL,
    NETWORK,
    RESULTS,
    SPEC,
    Backend,
    BatchSize,
    Device,
    Labels,
    Layers,
    Mean,
    Output,
    Parameters,
    Progress,
    Score,
    Size,
    Std,
    Stretch,
    Targets,
    Weights,
)
from attribution.cli.known import known_models, known_techniques
from attribution.cli.reading import Typed
from attribution.errors import InputError

OUT, SUFFIXES = Path("report.html"), (".html", ".htm")
TECHNIQUES = ("activations", "grad_cam", "occlusion")


@app.command(
    rich_help_panel=IMAGES,
    epilog="Example: attribution report photo.jpg -t grad_cam -t occlusion --target espresso -o photo.html",
)
def report(
    context: typer.Context,
    sources: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN|IMAGE", help="Photos, or the folder of one run.", show_default=False),
    ] = None,
    technique: Annotated[
        list[str] | None,
        typer.Option(
            "--technique",
            "-t",
            metavar="NAME",
            help="Repeatable; `attribution list` has all. Default: activations, grad_cam, occlusion.",
            autocompletion=known_techniques,
            show_default=False,
            rich_help_panel=ASKED,
        ),
    ] = None,
    backend: Backend = "hooks",
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="SPEC",
            help=f"{SPEC} Default: {MODEL}.",
            autocompletion=known_models,
            show_default=False,
            rich_help_panel=NETWORK,
        ),
    ] = None,
    weights: Weights = None,
    layer: Layers = None,
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
    batch_size: BatchSize = None,
    progress: Progress = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare/--no-compare",
            help="Ask the other backends too, and show whether they agree.",
            rich_help_panel=RESULTS,
        ),
    ] = True,
    evidence: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder that `attribution evaluate --out` named, for its scores.",
            show_default=False,
            rich_help_panel=RESULTS,
        ),
    ] = None,
    photos: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER|LIST.csv",
            help="Of a run: what it went over, if that was moved.",
            show_default=False,
            rich_help_panel=RESULTS,
        ),
    ] = None,
    most: Annotated[
        int, typer.Option(metavar="N", min=1, help="Items of a run on the page.", rich_help_panel=RESULTS)
    ] = 40,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE.html", help="The page; its folder must exist.", rich_help_panel=RESULTS
        ),
    ] = OUT,
) -> None:
    """Images, or the items of a run, as one HTML page: every map over its photo, agreement, and where it comes from.

    The page opens from the disk in any browser and asks no network for anything.
    """
    given = list(sources or [])
    _refuse_places(given, out, evidence)
    of_run = len(given) == 1 and given[0].is_dir()
    common: dict[str, object] = {"--evidence": evidence, "--out": out}
    reading = Typed(labels, size, mean, std)
    setting: dict[str, object] = {"--model": model or MODEL, "--weights": weights, "--stretch": stretch}
    setting |= {"--labels": labels, "--size": size, "--mean": mean, "--std": std}
    setting |= {"--batch-size": batch_size, "--device": device}
    asked: dict[str, object] = {"--technique": technique, "--layer": layer, "--target": target, "--param": param}
    asked |= {"--score": score, "--output": output}
    typed = _typed(context)
    if of_run:
        if unused := [name for name in (*asked, "--backend", "--compare", "--batch-size") if name in typed]:
            raise InputError(f"{paths.named(given[0])} is a run, whose maps are made; leave {unused[0]} out")
        if photos is not None and not photos.exists():
            raise InputError(f"no folder or list {paths.named(photos)}; give what the run went over")
        refuse(model=model, weights=weights, reading=reading)
    else:
        if unused := [name for name in ("--photos", "--most") if name in typed]:
            raise InputError(f"{unused[0]} is of a run; of images leave it out: all that are named are shown")
        refuse(
            technique or TECHNIQUES,
            param or [],
            given,
            model or MODEL,
            weights,
            reading,
            layers=layer or (),
            backend=backend,
            device=device,
        )
    from attribution.cli import question
    from attribution.cli import report as reports
    from attribution.cli.setting import Setting

    def settled() -> Setting:
        return Setting.of(model or MODEL, weights, device, stretch, reading, batch_size=batch_size, progress=progress)

    if of_run:
        named = photos is not None or bool(typed & ({*setting} - {"--device"}))
        options: dict[str, object] = {"--photos": photos, **(setting if named else {}), "--most": most, **common}
        loaded = settled() if named else None
        line = reports.command_of("report", given, options)
        reports.of_run(
            given[0],
            out,
            most=most,
            photos=photos,
            setting=loaded,
            default=settled,
            progress=progress,
            evaluation=evidence,
            command=line,
        )
        return
    names = technique or list(TECHNIQUES)
    parsed = question.parse(names, backend, given, layer or [], target or [], param or [], score, output)
    options = {**asked, "--technique": names, "--backend": backend, **setting, "--no-compare": not compare, **common}
    reports.of_images(
        parsed,
        settled(),
        backend,
        out,
        compared=compare,
        evaluation=evidence,
        command=reports.command_of("report", given, options),
    )


def _typed(context: typer.Context) -> set[str]:
    """The options that stand on the command line, by their first names."""
    sources = {each: context.get_parameter_source(each.name or "") for each in context.command.params}
    return {each.opts[0] for each, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _refuse_places(sources: list[Path], out: Path, evidence: Path | None) -> None:
    """Refuse what is no image and no run, and a page that cannot be written, before anything is imported."""
    if not sources:
        raise InputError("name the image of a report, or the folder of a run")
    folders = [path for path in sources if path.is_dir()]
    if folders and len(sources) > 1:
        raise InputError(f"{paths.named(folders[0])} is a folder; give one run, or images alone")
    for folder in folders:
        refuse_folder(folder, NO_RUN)
    if evidence:
        refuse_folder(evidence, "no evaluation; give what --out of `attribution evaluate` named")
    paths.writable(out, SUFFIXES, "the only format reports are written in")
