"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Images = Annotated[list[Path] | None, typer.Argument(metavar="IMAGE", show_default=False)]
OneImage = Annotated[Path | None, typer.Argument(metavar="IMAGE", show_default=False)]
Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="SPEC", help="bundled:NAME, torchvision:NAME, timm:NAME or FILE.py:FUNCTION."
    ),
]
Weights = Annotated[Path | None, typer.Option(metavar="FILE", help="State dict to load into the model.")]
Techniques = Annotated[
    list[str] | None,
    typer.Option(
        "--technique",
        "-t",
        metavar="NAME",
        help="Repeatable; `attribution list` has all. Default: grad_cam.",
        show_default=False,
    ),
]
Backend = Annotated[
    str, typer.Option("--backend", "-b", metavar="NAME", help="Who computes: hooks, captum or a plugin.")
]
Layers = Annotated[
    list[str] | None,
    typer.Option("--layer", "-l", metavar="NAME", help="Repeatable; `attribution layers` has all."),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target", metavar="LABEL|INDEX", help="Class to explain; repeatable, or `all`. Default: the prediction."
    ),
]
Score = Annotated[
    str | None,
    typer.Option(
        metavar="SCORE",
        help="What is explained: sigmoid, logit, probability, log_probability, finer, "
        "finer:REFERENCES:STRENGTH:WEIGHTS of classes; value, value:INDEX, region:CHANNEL, layer:NAME:CHANNEL, "
        "MODULE:FUNCTION or FILE.py:FUNCTION.",
        show_default=False,
    ),
]
Output = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Which tensor of the output: out, 0, heads.1.", show_default=False),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        "-p",
        metavar="NAME=VALUE",
        help="Of the technique, in TOML: -p window=48; of one of several: -p occlusion.window=48. Repeatable.",
    ),
]
Device = Annotated[
    str, typer.Option(metavar="cpu|cuda|auto", help="Where to compute; auto takes CUDA where there is some.")
]
Stretch = Annotated[bool, typer.Option("--stretch", help="Squeeze the whole photo into the input, uncropped.")]
Labels = Annotated[Path | None, typer.Option(metavar="FILE", help="Class names: one on each line, or JSON.")]
Size = Annotated[
    str | None,
    typer.Option(metavar="N|HxW", help="Input in pixels: photos are scaled to cover it and cut.", show_default=False),
]
Mean = Annotated[
    str | None, typer.Option(metavar="R,G,B", help="Of the normalisation, for values in [0, 1].", show_default=False)
]
Std = Annotated[str | None, typer.Option(metavar="R,G,B", help="Likewise.", show_default=False)]
BatchSize = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="Images, windows or filters per forward; default: what fits.", show_default=False
    ),
]
Progress = Annotated[
    bool | None,
    typer.Option("--progress/--no-progress", help="Progress bars. Default: in a terminal.", show_default=False),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results; made if missing.")]

MODEL = "bundled:squeezenet1_1"
OUT = Path("attribution-out")
TECHNIQUES = ("grad_cam",)
