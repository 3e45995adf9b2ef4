"""Command-line options that the tests and the benchmarks share, loaded by ``-p`` in ``pyproject.toml``."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--device``: any name that torch takes for a device by the time that the tests run."""
    parser.addoption(
        "--device", default="cpu", metavar="NAME", help="where models run: cpu (default), cuda, cuda:1, xpu, …"
    )
