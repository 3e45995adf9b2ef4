"""The tests of this folder, on the simulated device, in a process of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulated_device.device import NoCompiler, built

ROOT = Path(__file__).parents[2]


def test_on_a_simulated_device() -> None:
    try:
        built()
    except NoCompiler as error:
        pytest.skip(str(error))
    command = [sys.executable, "-m", "pytest", str(Path(__file__).parent), "--device", "sim:1", "-q"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
