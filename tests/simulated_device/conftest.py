"""These tests need a process of their own: torch takes one spare device, once. ``test_own_process`` starts it."""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    inside = str(config.getoption("--device")).startswith("sim")
    if not collection_path.name.startswith("test_"):
        return None
    return True if (collection_path.name == "test_own_process.py") == inside else None
