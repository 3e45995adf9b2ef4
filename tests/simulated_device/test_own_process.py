"""The tests of this folder, on the simulated device, in a process of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulated_device.device import NoCompiler, built

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_on_a_simulated_device() -> None:
    try:
        built()
    except NoCompiler as error:
        pytest.skip(str(error))
    tests = ["tests/simulated_device", "tests/test_agreement.py", "tests/testing/test_conformance.py"]
    options = ["--device", "sim:1", "-p", "tests.simulated_device.sample", "-q"]  # while sim:0 is current
    command = [sys.executable, "-m", "pytest", *tests, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
