"""Commands and their options; what they do lies beside this module and is imported when it is run."""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from attribution.cli import process

app = typer.Typer(
    name="attribution",
    help="Shows what PyTorch vision models learn and why they predict what they predict.",
    pretty_exceptions_enable=False,
)

_Images = Annotated[list[Path] | None, typer.Argument(metavar="IMAGE", show_default=False)]
_OneImage = Annotated[Path | None, typer.Argument(metavar="IMAGE", show_default=False)]
_Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="SPEC", help="bundled:NAME, torchvision:NAME, timm:NAME or FILE.py:FUNCTION."
    ),
]
_Weights = Annotated[Path | None, typer.Option(metavar="FILE", help="State dict to load into the model.")]
_Techniques = Annotated[
    list[str] | None,
    typer.Option(
        "--technique",
        "-t",
        metavar="NAME",
        help="Repeatable; `attribution list` has all. Default: grad_cam.",
        show_default=False,
    ),
]
_Backend = Annotated[
    str, typer.Option("--backend", "-b", metavar="NAME", help="Who computes: hooks, captum or a plugin.")
]
_Layers = Annotated[
    list[str] | None,
    typer.Option("--layer", "-l", metavar="NAME", help="Repeatable; `attribution layers` has all."),
]
_Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target", metavar="LABEL|INDEX", help="Class to explain; repeatable, or `all`. Default: the prediction."
    ),
]
_Score = Annotated[
    str | None,
    typer.Option(
        metavar="SCORE",
        help="What is explained: sigmoid, logit, probability, log_probability of classes; value, value:INDEX, "
        "region:CHANNEL, layer:NAME:CHANNEL, MODULE:FUNCTION or FILE.py:FUNCTION.",
        show_default=False,
    ),
]
_Output = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Which tensor of the output: out, 0, heads.1.", show_default=False),
]
_Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        "-p",
        metavar="NAME=VALUE",
        help="Of the technique, in TOML: -p window=48; of one of several: -p occlusion.window=48. Repeatable.",
    ),
]
_Device = Annotated[
    str, typer.Option(metavar="cpu|cuda|auto", help="Where to compute; auto takes CUDA where there is some.")
]
_Stretch = Annotated[bool, typer.Option("--stretch", help="Squeeze the whole photo into the input, uncropped.")]
_Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results; made if missing.")]

_MODEL = "bundled:squeezenet1_1"
_OUT = Path("attribution-out")
_TECHNIQUES = ("grad_cam",)


def _refuse(
    techniques: Sequence[str] = (),
    settings: Sequence[str] = (),
    images: Sequence[Path] = (),
    model: str | None = None,
    weights: Path | None = None,
) -> None:
    """What is wrong on the face of it, in a process that has not spent seconds on importing torch yet."""
    if "torch" not in sys.modules:
        from attribution.cli import early

        early.refuse(techniques=techniques, settings=settings, images=images, model=model, weights=weights)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        packages = ("torch-attribution", "torch", "torchvision", "captum")
        typer.echo(", ".join(f"{package} {version(package)}" for package in packages))
        raise typer.Exit


@app.callback()
def _all(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Versions of the packages, and out.")
    ] = False,
) -> None:
    """Options of every command."""


@app.command()
def demo(
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="Photo; default: a cup of coffee.")] = None,
    model: _Model = _MODEL,
    weights: _Weights = None,
    backend: _Backend = "hooks",
    device: _Device = "auto",
    stretch: _Stretch = False,
    out: _Out = _OUT,
) -> None:
    """Four techniques on one photo: what the model sees, likes, looks at and needs."""
    _refuse(images=[image] if image else [], model=model, weights=weights)
    from attribution.cli import demo
    from attribution.cli.output_folder import result_folder
    from attribution.cli.setting import Setting

    photo = demo.photo(image, backend)
    with result_folder(out) as folder:
        demo.run(photo, Setting.of(model, weights, device, stretch), backend, folder)


@app.command()
def explain(
    images: _Images = None,
    technique: _Techniques = None,
    backend: _Backend = "hooks",
    model: _Model = _MODEL,
    weights: _Weights = None,
    layer: _Layers = None,
    target: _Targets = None,
    score: _Score = None,
    output: _Output = None,
    param: _Parameters = None,
    device: _Device = "auto",
    stretch: _Stretch = False,
    out: _Out = _OUT,
) -> None:
    """One or more techniques on one or more images: a picture and the maps for each."""
    _refuse(technique or _TECHNIQUES, param or [], images or [], model, weights)
    from attribution.cli import question
    from attribution.cli.output_folder import result_folder
    from attribution.cli.setting import Setting

    asked = question.parse(
        technique or _TECHNIQUES, backend, images or [], layer or [], target or [], param or [], score, output
    )
    with result_folder(out) as folder:
        question.explain(asked, Setting.of(model, weights, device, stretch), backend, folder)


@app.command()
def compare(
    image: _OneImage = None,
    technique: _Techniques = None,
    model: _Model = _MODEL,
    weights: _Weights = None,
    layer: _Layers = None,
    target: _Targets = None,
    score: _Score = None,
    output: _Output = None,
    param: _Parameters = None,
    device: _Device = "auto",
    stretch: _Stretch = False,
    out: _Out = _OUT,
) -> None:
    """One or more techniques by every installed backend, and whether they agree; exit code 1 if not."""
    _refuse(technique or _TECHNIQUES, param or [], [image] if image else [], model, weights)
    from attribution.cli import question
    from attribution.cli.output_folder import result_folder
    from attribution.cli.setting import Setting

    images = [image] if image else []
    asked = question.parse(
        technique or _TECHNIQUES, None, images, layer or [], target or [], param or [], score, output
    )
    with result_folder(out) as folder:
        agreed = question.compare(asked, Setting.of(model, weights, device, stretch), folder)
    if not agreed:
        raise typer.Exit(1)


@app.command()
def run(
    source: Annotated[Path, typer.Argument(metavar="FOLDER|LIST.csv", show_default=False)],
    technique: Annotated[
        list[str], typer.Option("--technique", "-t", metavar="NAME", help="Repeatable; `attribution list` has all.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the run; the same goes on.")],
    backend: _Backend = "hooks",
    model: _Model = _MODEL,
    weights: _Weights = None,
    layer: _Layers = None,
    target: _Targets = None,
    score: _Score = None,
    output: _Output = None,
    param: _Parameters = None,
    device: _Device = "auto",
    stretch: _Stretch = False,
    batch_size: Annotated[str, typer.Option(metavar="N|auto", help="Images of one file and forward.")] = "auto",
    devices: Annotated[int, typer.Option(metavar="N", help="Processes on this machine, one per GPU.")] = 1,
    nodes: Annotated[int, typer.Option(metavar="M", help="Machines.")] = 1,
    workers: Annotated[int, typer.Option(metavar="N", help="Processes that read images, for each that computes.")] = 0,
    threads: Annotated[int | None, typer.Option(metavar="N", help="Of torch; default: as many as it has.")] = None,
    precision: Annotated[str, typer.Option(metavar="32|bf16-mixed|16-mixed", help="Of the forwards.")] = "32",
    labels: Annotated[Path | None, typer.Option(metavar="FILE", help="Class names: one on each line, or JSON.")] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also a PNG of each heatmap over its image.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Techniques on every image of a folder or a list; the same command goes on with a run that ended."""
    _refuse(technique, param or [], model=model, weights=weights)
    from attribution.cli import run
    from attribution.cli.setting import Setting, chosen_device
    from attribution.errors import InputError
    from attribution.runs.plan import Plan

    size: int | str = int(batch_size) if batch_size.isascii() and batch_size.isdigit() else batch_size
    plan = Plan(
        batch_size=size,
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
    setting = Setting.of(model, weights, "cpu", stretch)
    code = run.run(
        source,
        asked,
        setting,
        backend,
        out,
        plan,
        device=place,
        precision=precision,
        labels=labels,
        overlay=overlay,
    )
    raise typer.Exit(code)


@app.command()
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


@app.command()
def evaluate(
    folder: Annotated[Path | None, typer.Argument(metavar="FOLDER", show_default=False)] = None,
    technique: Annotated[
        list[str] | None,
        typer.Option("--technique", "-t", metavar="NAME", help="Repeatable. Default: grad_cam.", show_default=False),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Repeatable; the first one ranks. Default: srg, insertion, deletion. Others: infidelity, "
            "max_sensitivity, randomisation, completeness_gap, seed_spread, backend_difference, float64_difference.",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="mean|blur|noise|NUMBER", help="What removed cells show. Default: all three.", show_default=False
        ),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Of a curve.")] = 16,
    sample: Annotated[
        int | None, typer.Option(metavar="N", help="So many photos at random. Default: all.", show_default=False)
    ] = None,
    backend: _Backend = "hooks",
    model: _Model = _MODEL,
    weights: _Weights = None,
    target: _Targets = None,
    score: _Score = None,
    output: _Output = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="TECHNIQUE.NAME=VALUE", help="In TOML: -p occlusion.window=48."),
    ] = None,
    device: _Device = "auto",
    stretch: _Stretch = False,
    out: _Out = _OUT,
) -> None:
    """Which technique to trust, by a folder of photos (default: the sample photos): a table, a figure, CSV files.

    A second call with the same question and folder goes on where the first one ended.
    """
    _refuse(technique or ["grad_cam"], param or [], model=model, weights=weights)
    from attribution.cli import evaluate
    from attribution.cli.output_folder import result_folder
    from attribution.cli.setting import Setting

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
    with result_folder(out) as results:
        evaluate.run(asked, Setting.of(model, weights, device, stretch), results)


@app.command()
def atlas(
    layer: Annotated[str, typer.Option("--layer", "-l", metavar="NAME", help="`attribution layers` has all.")],
    backend: _Backend = "hooks",
    model: _Model = _MODEL,
    weights: _Weights = None,
    param: _Parameters = None,
    device: _Device = "auto",
    out: _Out = _OUT,
) -> None:
    """What excites every channel of a layer, strongest first, on one page."""
    from attribution.cli import atlas
    from attribution.cli.output_folder import result_folder
    from attribution.cli.setting import Setting

    with result_folder(out) as folder:
        atlas.run(layer, param or [], Setting.of(model, weights, device, stretch=False), backend, folder)


@app.command("list")
def list_() -> None:
    """Techniques, the backends that compute them, and the distributions that bring them."""
    from attribution.cli import listing

    typer.echo(listing.attributors())


@app.command()
def layers(model: _Model = _MODEL, weights: _Weights = None, device: _Device = "auto") -> None:
    """Layers of a model: names, types, output shapes."""
    from attribution.cli import listing
    from attribution.cli.setting import Setting

    typer.echo(listing.layers(Setting.of(model, weights, device, stretch=False)))


@app.command()
def check(
    attributor: Annotated[str, typer.Argument(metavar="MODULE:CLASS", help="E.g. my_package.my_module:MyGradCAM.")],
    device: Annotated[str, typer.Option(metavar="NAME", help="Where its models lie: cpu, cuda, cuda:1, …")] = "cpu",
) -> None:
    """The conformance kit on one attributor, a line per check; exit code 1 if some fail."""
    from attribution.cli import check

    if not check.run(attributor, device):
        raise typer.Exit(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: without the program's name; ``None``: those of the process.

    Returns:
        The exit code: 0 done, 1 backends disagree, checks or images of a run fail, 2 an error, told in one or two lines
        on stderr, 130 interrupted, 141 the reader of standard output is gone, 143 ended by SIGTERM (129: by SIGHUP).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    completing = "_ATTRIBUTION_COMPLETE" in os.environ or any(word.endswith("-completion") for word in given[:1])
    return process.run(
        lambda: app(given or ["--help"], prog_name="attribution", standalone_mode=False), completing=completing
    )
