"""Commands that list and check, and begin a plugin: list, layers, check, new-plugin."""

from pathlib import Path
from typing import Annotated

import typer

from attribution.cli.commands.app import app
from attribution.cli.commands.options import MODEL, Device, Model, Weights


@app.command("list", epilog="Example: attribution list")
def list_() -> None:
    """Techniques, the backends that compute them, and the distributions that bring them."""
    from attribution.cli import listing

    typer.echo(listing.attributors())


@app.command(epilog="Example: attribution layers -m torchvision:resnet18")
def layers(model: Model = MODEL, weights: Weights = None, device: Device = "auto") -> None:
    """Layers of a model: names, types, output shapes."""
    from attribution.cli import listing
    from attribution.cli.setting import Setting

    typer.echo(listing.layers(Setting.of(model, weights, device, stretch=False)))


@app.command(epilog="Example: attribution check my_package.my_module:MyGradCAM")
def check(
    attributor: Annotated[
        str, typer.Argument(metavar="MODULE:CLASS|FILE.py:CLASS", help="E.g. my_package.my_module:MyGradCAM.")
    ],
    device: Annotated[str, typer.Option(metavar="NAME", help="Where its models lie: cpu, cuda, cuda:1, …")] = "cpu",
) -> None:
    """The conformance kit on one attributor, a line per check; exit code 1 if some fail."""
    from attribution.cli import check

    if not check.run(attributor, device):
        raise typer.Exit(1)


@app.command("new-plugin", epilog="Example: attribution new-plugin plain_gradient")
def new_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the technique: lower case, such as plain_gradient.")],
    backend: Annotated[str, typer.Option("--backend", "-b", metavar="NAME", help="Of its attributor.")] = "autograd",
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder it is made in.")] = Path(),
) -> None:
    """A package with a technique, an attributor and tests that pass, to be changed into one's own."""
    from attribution.cli import plugin

    written = plugin.write(name, backend, out)
    for path in written:
        typer.echo(path)
    typer.echo(f"next: pip install -e {written[0].parent}, pytest {written[0].parent}, and change the formula")
