"""A run that nothing disturbs."""

from pathlib import Path

import pytest

from tests.runs.asked import ran


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    return ran(tmp_path_factory.mktemp("whole")).folder.root
