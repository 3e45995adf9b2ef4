"""Commands and their options; what they do lies beside this package and is imported when it is run."""

import io
import os
import sys
from collections.abc import Sequence

from attribution.cli import process
from attribution.cli.commands import explaining, folders, listings, reports
from attribution.cli.commands.app import app

__all__ = ["app", "explaining", "folders", "listings", "main", "reports"]


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
