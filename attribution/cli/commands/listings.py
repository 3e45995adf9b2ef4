"""Commands that list and check, and begin a plugin: list, layers, check, new-plugin."""

from pathlib import Path
from typing import Annotated

import typer

from attribution.cli.commands.app import KNOWN, app, refuse
from attribution.cli.commands.options import MODEL, Device, Mean, Model, Size, Std, Weights
from attribution.cli.reading import Typed


@app.command("list", rich_help_panel=KNOWN, epilog="Example: attribution list")
def list_() -> None:
    """Techniques, the backends that compute them, and the distributions that bring them."""
    from attribution.cli import listing

    typer.echo(listing.attributors())


@app.command(rich_help_panel=KNOWN, epilog="Example: attribution layers -m torchvision:resnet18")
def layers(
    model: Model = MODEL,
    weights: Weights = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    device: Device = "auto",
) -> None:
    """Layers of a model: names, types, output shapes for a photo."""
    reading = Typed(None, size, mean, std)
    refuse(model=model, weights=weights, reading=reading, device=device)
    from attribution.cli import listing
    from attribution.cli.setting import Setting

    typer.echo(listing.layers(Setting.of(model, weights, device, False, reading)))


@app.command(rich_help_panel=KNOWN, epilog="Example: attribution check my_package.my_module:MyGradCAM")
def check(
    attributor: Annotated[str, typer.Argument(metavar="MODULE:CLASS|FILE.py:CLASS", help="The attributor's class.")],
    device: Annotated[str, typer.Option(metavar="NAME", help="Where its models lie: cpu, cuda, cuda:1, …")] = "cpu",
) -> None:
    """The conformance kit on one attributor, a line per check; exit code 1 if some fail."""
    from attribution.cli import check

    if not check.run(attributor, device):
        raise typer.Exit(1)


@app.command("new-plugin", rich_help_panel=KNOWN, epilog="Example: attribution new-plugin plain_gradient")
def new_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The technique's name, in lower case.")],
    backend: Annotated[str, typer.Option("--backend", "-b", metavar="NAME", help="The backend's name.")] = "autograd",
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where its folder is made.")] = Path(),
) -> None:
    """A package with a technique, an attributor and tests that pass, to be changed into one's own."""
    from attribution.cli import plugin

    written = plugin.write(name, backend, out)
    for path in written:
        typer.echo(path)
    typer.echo(f"next: pip install -e {written[0].parent}, pytest {written[0].parent}, and change the formula")
