"""The command ``attribution``."""

from attribution.cli.commands import app as app
from attribution.cli.commands import main as main
