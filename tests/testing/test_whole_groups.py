"""A run fails where a parametrised test was skipped whole, and only there."""

import subprocess
import sys
from pathlib import Path

import pytest

WHOLE = """
import pytest
@pytest.mark.parametrize("n", [1, 2, 3])
def test_some(n):
    if n {condition}:
        pytest.skip("not here")
"""


@pytest.mark.parametrize(("condition", "code"), [("> 0", 1), ("> 1", 0), ("> 3", 0)])
def test_a_group_skipped_whole_fails(condition: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(WHOLE.format(condition=condition))
    root = Path(__file__).parents[2]
    plugin = (root / "tests/whole_groups.py").read_text(encoding="utf-8")
    (tmp_path / "whole_groups_here.py").write_text(plugin)
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", str(tmp_path)]
    command += ["-p", "whole_groups_here", "-p", "no:cacheprovider", "-p", "no:benchmark", "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("test_some: every case was skipped" in done.stdout) == (code == 1)
