"""The program, its options, and what every command refuses before it imports torch."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from attribution.cli.reading import UNCHANGED, Typed

app = typer.Typer(
    name="attribution",
    help="Shows what PyTorch vision models learn and why they predict what they predict.",
    pretty_exceptions_enable=False,
)


def refuse(
    techniques: Sequence[str] = (),
    settings: Sequence[str] = (),
    images: Sequence[Path] = (),
    model: str | None = None,
    weights: Path | None = None,
    reading: Typed = UNCHANGED,
) -> None:
    """What is wrong on the face of it, in a process that has not spent seconds on importing torch yet."""
    if "torch" not in sys.modules:
        from attribution.cli import early

        early.refuse(techniques=techniques, settings=settings, images=images, model=model, weights=weights)
        reading.refuse()


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
