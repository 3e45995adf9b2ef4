"""Commands that list and check: list, layers, check."""

from typing import Annotated

import typer

from attribution.cli.commands.app import app
from attribution.cli.commands.options import MODEL, Device, Model, Weights


@app.command("list")
def list_() -> None:
    """Techniques, the backends that compute them, and the distributions that bring them."""
    from attribution.cli import listing

    typer.echo(listing.attributors())


@app.command()
def layers(model: Model = MODEL, weights: Weights = None, device: Device = "auto") -> None:
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
