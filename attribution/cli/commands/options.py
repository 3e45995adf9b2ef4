"""Options that several commands share, and the panels of ``--help`` that they stand in."""

from pathlib import Path
from typing import Annotated

import typer

from attribution.cli.early_models import BUNDLED
from attribution.cli.known import known_backends, known_models, known_techniques

ASKED, NETWORK, PHOTOS = "What is asked", "The model", "How photos reach the model"
RUNNING, RESULTS = "How it runs", "Results"
MODEL = f"bundled:{BUNDLED[0]}"
OUT = Path("attribution-out")
TECHNIQUES = ("grad_cam",)
SPEC = "bundled:NAME, torchvision:NAME, timm:NAME or FILE.py:FUNCTION, a function that returns the model."

Images = Annotated[
    list[Path] | None,
    typer.Argument(metavar="IMAGE", help="Photos: JPEG, PNG, WebP, BMP, GIF or TIFF files.", show_default=False),
]
OneImage = Annotated[
    Path | None,
    typer.Argument(metavar="IMAGE", help="A photo: a JPEG, PNG, WebP, BMP, GIF or TIFF file.", show_default=False),
]
FolderOrList = typer.Argument(
    metavar="FOLDER|LIST.csv",
    help="Photos: a folder with all below it, or a list with a column path, and target if it likes.",
    show_default=False,
)
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="The folder that `attribution run --out` named.", show_default=False)
]
Model = Annotated[
    str, typer.Option("--model", "-m", metavar="SPEC", help=SPEC, autocompletion=known_models, rich_help_panel=NETWORK)
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Your weights for it: a state dict or checkpoint, .pt, .pth or .safetensors.",
        rich_help_panel=NETWORK,
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Class names: one on each line, or JSON.", rich_help_panel=NETWORK),
]
Techniques = Annotated[
    list[str] | None,
    typer.Option(
        "--technique",
        "-t",
        metavar="NAME",
        help="Repeatable; `attribution list` has all. Default: grad_cam.",
        autocompletion=known_techniques,
        show_default=False,
        rich_help_panel=ASKED,
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        "-b",
        metavar="NAME",
        help="Who computes: hooks, captum or a plugin.",
        autocompletion=known_backends,
        rich_help_panel=ASKED,
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        "-l",
        metavar="NAME",
        help="Where the technique looks; repeatable. `attribution layers` has all. Default: the technique's own.",
        show_default=False,
        rich_help_panel=ASKED,
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="LABEL|INDEX",
        help="Class to explain; repeatable, or `all`. Default: the prediction.",
        show_default=False,
        rich_help_panel=ASKED,
    ),
]
Score = Annotated[
    str | None,
    typer.Option(
        metavar="SCORE",
        help="Which number is explained. Of classes: logit, probability, log_probability, sigmoid, finer (with "
        "details finer:REFERENCES, finer:REFERENCES:STRENGTH:WEIGHTS). Of other outputs: value, value:INDEX, "
        "region:CHANNEL, layer:NAME:CHANNEL, MODULE:FUNCTION, FILE.py:FUNCTION.",
        show_default=False,
        rich_help_panel=ASKED,
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Which tensor, where the model returns several: out, 0, heads.1.",
        show_default=False,
        rich_help_panel=ASKED,
    ),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        "-p",
        metavar="NAME=VALUE",
        help="A parameter of the technique: -p window=48; of one of several: -p occlusion.window=48. Repeatable.",
        show_default=False,
        rich_help_panel=ASKED,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="cpu|cuda|auto",
        help="Where to compute; auto takes CUDA where there is some.",
        rich_help_panel=RUNNING,
    ),
]
Stretch = Annotated[
    bool,
    typer.Option("--stretch", help="Squeeze the whole photo into the input, uncropped.", rich_help_panel=PHOTOS),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="N|HxW",
        help="Input in pixels: photos are scaled to cover it, and cut.",
        show_default=False,
        rich_help_panel=PHOTOS,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="R,G,B",
        help="Subtracted from each channel, whose values are in [0, 1].",
        show_default=False,
        rich_help_panel=PHOTOS,
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        metavar="R,G,B",
        help="Divides each channel after that. One number stands for all channels.",
        show_default=False,
        rich_help_panel=PHOTOS,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Images, windows or filters per forward; default: what fits.",
        show_default=False,
        rich_help_panel=RUNNING,
    ),
]
Progress = Annotated[
    bool | None,
    typer.Option(
        "--progress/--no-progress",
        help="Progress bars. Default: in a terminal.",
        show_default=False,
        rich_help_panel=RUNNING,
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        help="Folder for the results; made if missing.",
        rich_help_panel=RESULTS,
    ),
]
