"""Command-line options that the tests and the benchmarks share, loaded by ``-p`` in ``pyproject.toml``."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--device``."""
    parser.addoption("--device", default="cpu", choices=["cpu", "cuda"], help="where models run (default: cpu)")
