"""Commands that explain images: demo, explain, compare, atlas."""

from pathlib import Path
from typing import Annotated

import typer

from attribution.cli.commands.app import app, refuse
from attribution.cli.commands.options import (
    MODEL,
    OUT,
    TECHNIQUES,
    Backend,
    Device,
    Images,
    Layers,
    Model,
    OneImage,
    Out,
    Output,
    Parameters,
    Score,
    Stretch,
    Targets,
    Techniques,
    Weights,
)


@app.command()
def demo(
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="Photo; default: a cup of coffee.")] = None,
    model: Model = MODEL,
    weights: Weights = None,
    backend: Backend = "hooks",
    device: Device = "auto",
    stretch: Stretch = False,
    out: Out = OUT,
) -> None:
    """Four techniques on one photo: what the model sees, likes, looks at and needs."""
    refuse(images=[image] if image else [], model=model, weights=weights)
    from attribution.cli import demo, report
    from attribution.cli.output_folder import result_folder
    from attribution.cli.setting import Setting

    photo = demo.photo(image, backend)
    options = {"--image": image, "--model": model, "--weights": weights, "--backend": backend, "--device": device}
    command = report.command_of("demo", [], {**options, "--stretch": stretch, "--out": out})
    name = "coffee" if image is None else image.name
    with result_folder(out) as folder:
        demo.run(photo, Setting.of(model, weights, device, stretch), backend, folder, name=name, command=command)


@app.command()
def explain(
    images: Images = None,
    technique: Techniques = None,
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
    out: Out = OUT,
) -> None:
    """One or more techniques on one or more images: a picture and the maps for each."""
    refuse(technique or TECHNIQUES, param or [], images or [], model, weights)
    from attribution.cli import question
    from attribution.cli.output_folder import result_folder
    from attribution.cli.setting import Setting

    asked = question.parse(
        technique or TECHNIQUES, backend, images or [], layer or [], target or [], param or [], score, output
    )
    with result_folder(out) as folder:
        question.explain(asked, Setting.of(model, weights, device, stretch), backend, folder)


@app.command()
def compare(
    image: OneImage = None,
    technique: Techniques = None,
    model: Model = MODEL,
    weights: Weights = None,
    layer: Layers = None,
    target: Targets = None,
    score: Score = None,
    output: Output = None,
    param: Parameters = None,
    device: Device = "auto",
    stretch: Stretch = False,
    out: Out = OUT,
) -> None:
    """One or more techniques by every installed backend, and whether they agree; exit code 1 if not."""
    refuse(technique or TECHNIQUES, param or [], [image] if image else [], model, weights)
    from attribution.cli import question
    from attribution.cli.output_folder import result_folder
    from attribution.cli.setting import Setting

    images = [image] if image else []
    asked = question.parse(technique or TECHNIQUES, None, images, layer or [], target or [], param or [], score, output)
    with result_folder(out) as folder:
        agreed = question.compare(asked, Setting.of(model, weights, device, stretch), folder)
    if not agreed:
        raise typer.Exit(1)


@app.command()
def atlas(
    layer: Annotated[str, typer.Option("--layer", "-l", metavar="NAME", help="`attribution layers` has all.")],
    backend: Backend = "hooks",
    model: Model = MODEL,
    weights: Weights = None,
    param: Parameters = None,
    device: Device = "auto",
    out: Out = OUT,
) -> None:
    """What excites every channel of a layer, strongest first, on one page."""
    from attribution.cli import atlas
    from attribution.cli.output_folder import result_folder
    from attribution.cli.setting import Setting

    with result_folder(out) as folder:
        atlas.run(layer, param or [], Setting.of(model, weights, device, stretch=False), backend, folder)
