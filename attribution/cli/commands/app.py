"""The program, its options, and what every command refuses before it imports torch."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from attribution import paths
from attribution.cli.reading import UNCHANGED, Typed
from attribution.errors import InputError

IMAGES, FOLDERS, KNOWN = "Images", "Folders of images", "What there is, and plugins"
"""Panels of the commands."""

RUN = "run.json"
"""What a folder of a run or an evaluation holds; known here without importing what reads it, which takes seconds."""
NO_RUN = "no run; give what --out of `attribution run` named"
_DEVICES = ("auto", "cpu", "cuda")

app = typer.Typer(
    name="attribution",
    help="Shows what PyTorch vision models learn and why they predict what they predict.",
    epilog="Example: attribution demo, then attribution report photo.jpg. Exit codes: 0 done, 1 backends disagree, or "
    "checks or images fail, 2 refused, 130 interrupted.",
    pretty_exceptions_enable=False,
)


def refuse(
    techniques: Sequence[str] = (),
    settings: Sequence[str] = (),
    images: Sequence[Path] = (),
    model: str | None = None,
    weights: Path | None = None,
    reading: Typed = UNCHANGED,
    layers: Sequence[str] = (),
    backend: str | None = None,
    device: str = "auto",
) -> None:
    """What is wrong on the face of it, in a process that has not spent seconds on importing torch yet."""
    if "torch" not in sys.modules:
        from attribution.cli import early

        reading.refuse()
        early.refuse(
            techniques=techniques,
            settings=settings,
            images=images,
            model=model,
            weights=weights,
            layers=layers,
            backend=backend,
        )
        if device not in _DEVICES:
            raise InputError(f"no device {device!r}; give cpu, cuda or auto")


def refuse_folder(folder: Path, told: str) -> None:
    """Refuse a folder that holds no run and no evaluation, before torch is imported.

    Args:
        folder: As typed.
        told: What it lacks, and what to give.

    Raises:
        InputError: ``run.json`` is not in it.
    """
    if paths.fault(folder / RUN):
        found = "holds" if folder.exists() else "does not exist, and holds"
        raise InputError(f"the folder {paths.named(folder)} {found} {told}")


def refuse_source(source: Path) -> None:
    """Refuse what is neither a folder nor a list, before torch is imported.

    Raises:
        InputError: It is missing, or a file that is no list.
    """
    if not source.exists():
        raise InputError(f"no folder or list {str(source)!r}; give a folder of images or a LIST.csv")
    if source.is_file() and source.suffix.lower() != ".csv":
        raise InputError(
            f"{paths.named(source)} is a file and no list; give the folder of the images, or a .csv with a column path"
        )


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        packages = ("torch-attribution", "torch", "torchvision", "captum")
        typer.echo(", ".join(f"{package} {version(package)}" for package in packages))
        raise typer.Exit


@app.callback()
def _all(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show versions and exit."),
    ] = False,
) -> None:
    """Options of every command."""
