"""Commands that explain images: demo, explain, compare, atlas."""

from pathlib import Path
from typing import Annotated

import typer

from attribution.cli.commands.app import IMAGES, app, refuse
from attribution.cli.commands.options import (
    ASKED,
    MODEL,
    OUT,
    PHOTOS,
    TECHNIQUES,
    Backend,
    BatchSize,
    Device,
    Images,
    Labels,
    Layers,
    Mean,
    Model,
    OneImage,
    Out,
    Output,
    Parameters,
    Progress,
    Score,
    Size,
    Std,
    Stretch,
    Targets,
    Techniques,
    Weights,
)
from attribution.cli.reading import Typed
from attribution.errors import InputError

FILTERS = "filter_visualization"  # its layer may also be the word for the model's own output


@app.command(rich_help_panel=IMAGES, epilog="Example: attribution demo --image photo.jpg")
def demo(
    image: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Your photo. Default: a cup of coffee.", rich_help_panel=PHOTOS),
    ] = None,
    model: Model = MODEL,
    weights: Weights = None,
    backend: Backend = "hooks",
    device: Device = "auto",
    stretch: Stretch = False,
    labels: Labels = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    batch_size: BatchSize = None,
    progress: Progress = None,
    out: Out = OUT,
) -> None:
    """Four techniques on one photo: what the model sees, likes, looks at and needs."""
    reading = Typed(labels, size, mean, std)
    refuse(images=[image] if image else [], model=model, weights=weights, reading=reading, device=device)
    from attribution.cli import demo, report
    from attribution.cli.output_folder import result_folder
    from attribution.cli.setting import Setting

    photo = demo.photo(image, backend)
    options: dict[str, object] = {
        "--image": image,
        "--model": model,
        "--weights": weights,
        "--backend": backend,
        "--device": device,
    }
    options |= {"--labels": labels, "--size": size, "--mean": mean, "--std": std, "--batch-size": batch_size}
    command = report.command_of("demo", [], {**options, "--stretch": stretch, "--out": out})
    name = "coffee" if image is None else image.name
    with result_folder(out) as folder:
        setting = Setting.of(model, weights, device, stretch, reading, batch_size=batch_size, progress=progress)
        whole = demo.run(photo, setting, backend, folder, name=name, command=command)
    if not whole:
        raise typer.Exit(1)


@app.command(
    rich_help_panel=IMAGES,
    epilog="Example: attribution explain photo.jpg -t grad_cam -t occlusion --target espresso -p window=48",
)
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
    labels: Labels = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    batch_size: BatchSize = None,
    progress: Progress = None,
    out: Out = OUT,
) -> None:
    """One or more techniques on one or more images: a picture and the maps for each."""
    reading = Typed(labels, size, mean, std)
    if not images and not technique:
        raise InputError("grad_cam needs an image; give the path of one: attribution explain photo.jpg")
    refuse(
        technique or TECHNIQUES,
        param or [],
        images or [],
        model=model,
        weights=weights,
        reading=reading,
        layers=() if FILTERS in (technique or ()) else layer or (),
        backend=backend,
        device=device,
    )
    from attribution.cli import question
    from attribution.cli.output_folder import result_folder
    from attribution.cli.setting import Setting

    asked = question.parse(
        technique or TECHNIQUES, backend, images or [], layer or [], target or [], param or [], score, output
    )
    with result_folder(out) as folder:
        setting = Setting.of(model, weights, device, stretch, reading, batch_size=batch_size, progress=progress)
        question.explain(asked, setting, backend, folder)


@app.command(rich_help_panel=IMAGES, epilog="Example: attribution compare photo.jpg -t grad_cam -l features.12")
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
    labels: Labels = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    batch_size: BatchSize = None,
    progress: Progress = None,
    out: Out = OUT,
) -> None:
    """One or more techniques by every installed backend, and whether they agree; exit code 1 if not."""
    reading = Typed(labels, size, mean, std)
    if image is None and not technique:
        raise InputError("grad_cam needs an image; give the path of one: attribution compare photo.jpg")
    refuse(
        technique or TECHNIQUES,
        param or [],
        [image] if image else [],
        model=model,
        weights=weights,
        reading=reading,
        layers=() if FILTERS in (technique or ()) else layer or (),
        device=device,
    )
    from attribution.cli import question
    from attribution.cli.output_folder import result_folder
    from attribution.cli.setting import Setting

    images = [image] if image else []
    asked = question.parse(technique or TECHNIQUES, None, images, layer or [], target or [], param or [], score, output)
    with result_folder(out) as folder:
        setting = Setting.of(model, weights, device, stretch, reading, batch_size=batch_size, progress=progress)
        agreed = question.compare(asked, setting, folder)
    if not agreed:
        raise typer.Exit(1)


@app.command(rich_help_panel=IMAGES, epilog="Example: attribution atlas -l features.6.expand3x3")
def atlas(
    layer: Annotated[
        str,
        typer.Option(
            "--layer",
            "-l",
            metavar="NAME",
            help="Whose channels are shown; `attribution layers` has all.",
            rich_help_panel=ASKED,
        ),
    ],
    backend: Backend = "hooks",
    model: Model = MODEL,
    weights: Weights = None,
    param: Parameters = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    progress: Progress = None,
    out: Out = OUT,
) -> None:
    """What excites every channel of a layer, strongest first, on one page."""
    refuse([FILTERS], param or [], model=model, weights=weights, backend=backend, device=device)
    from attribution.cli import atlas
    from attribution.cli.output_folder import result_folder
    from attribution.cli.setting import Setting

    with result_folder(out) as folder:
        setting = Setting.of(model, weights, device, stretch=False, batch_size=batch_size, progress=progress)
        atlas.run(layer, param or [], setting, backend, folder)
