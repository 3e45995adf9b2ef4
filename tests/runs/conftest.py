"""A run that nothing disturbs."""

from pathlib import Path

import pytest

from tests.runs import forked
from tests.runs.asked import ran


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    return ran(tmp_path_factory.mktemp("whole")).folder.root


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `noise_run` that nothing disturbed, in a process like those that are killed."""
    root = tmp_path_factory.mktemp("undisturbed") / "run"
    process = forked.started(root)
    process.join(300)
    assert process.exitcode == 0, (root.parent / "run.log").read_text()
    return root
