"""How a command ends: signals, streams that break, strangers' code that exits, and no traceback ever."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from attribution import api
from attribution.cli import main, process, question

Refused = Callable[..., str]
COMMAND = [sys.executable, "-m", "attribution"]
SLOW = """
import pathlib, time
from torch import nn

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        pathlib.Path(__file__).with_name("running").touch()
        time.sleep(0.2)
        return self.body(x).mean((2, 3))
"""


def photo(folder: Path, name: str = "a.png") -> Path:
    path = folder / name
    Image.new("RGB", (60, 40), (200, 30, 60)).save(path, "png")
    return path


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_removes_what_is_half_done(tmp_path: Path, name: str, code: int) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    out = tmp_path / "deep" / "out"
    command = [*COMMAND, "explain", str(photo(tmp_path)), "-m", "slow.py:Slow", "-t", "occlusion", "-o", str(out)]
    job = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    (tmp_path / "running").unlink(missing_ok=True)
    while not ((tmp_path / "running").exists() and out.is_dir()):
        assert job.poll() is None
        time.sleep(0.02)
    assert [entry.name.startswith(".attribution-") for entry in out.iterdir()] == [True]
    job.send_signal(getattr(signal, name))
    told = job.communicate()
    assert job.returncode == code
    assert told == ("", "")
    assert not (tmp_path / "deep").exists()


def test_handlers_are_given_back_and_what_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        seen: list[Any] = []
        process.run(lambda: seen.extend(signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)))
        assert callable(seen[0])
        assert seen[1] == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_does_not_disturb_the_tidying_up() -> None:
    tidied: list[str] = []

    def command() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # as timeout(1) sends one to the process and one to its group
            tidied.append("done")

    assert process.run(command) == 143
    assert tidied == ["done"]


def test_a_signal_while_an_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(typer, "echo", stopped)
    assert process.run(lambda: 1 / 0) == 143


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


def test_an_error_that_cannot_speak(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise Mute

    assert process.run(fail) == 2
    assert capsys.readouterr().err.startswith("error: Mute\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has this device")
@pytest.mark.parametrize("arguments", [["list"], ["--help"]])
def test_a_full_disk_behind_standard_output(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: cannot write to standard output: No space left on device\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has this device")
def test_a_full_disk_behind_both_streams() -> None:
    with open("/dev/full", "w") as full:
        assert subprocess.run([*COMMAND, "list"], stdout=full, stderr=full, check=False).returncode == 2


@pytest.mark.parametrize("arguments", [["list"], ["--help"]])
def test_a_standard_output_that_was_closed(arguments: list[str]) -> None:
    shell = ["sh", "-c", '"$@" >&-', "sh", *COMMAND, *arguments]
    done = subprocess.run(shell, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: cannot write to standard output: it is closed\n"


@pytest.mark.parametrize("arguments", [["list"], ["--help"]])
def test_a_reader_that_is_gone(arguments: list[str]) -> None:
    job = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert job.stdout is not None
    job.stdout.close()
    assert job.stderr is not None
    assert job.stderr.read() == b""
    assert job.wait() == 141
    job.stderr.close()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SystemExit(0), "ended the process by exit(0)"),
        (SystemExit("why"), "ended the process by exit('why')"),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum recursion depth exceeded"),
        (KeyError("x"), "KeyError: no 'x'"),
        (MemoryError(), "MemoryError"),
        (ValueError("one\ntwo\n\nthree"), "ValueError: one"),
        (PermissionError(13, "Permission denied", "x"), "PermissionError: [Errno 13] Permission denied: 'x'"),
        (GeneratorExit(), "GeneratorExit"),
    ],
    ids=repr,
)
def test_whatever_a_command_raises_is_a_line_or_two(
    error: BaseException, words: str, spec: str, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(api, "explain", fail)
    assert words in refused("explain", photo(tmp_path), "--model", spec, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_traceback_can_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(question, "parse", fail)
    monkeypatch.setenv(process.TRACEBACK, "1")
    assert main(["explain", "a.png", "--out", str(tmp_path / "out")]) == 2
    assert "Traceback" in capsys.readouterr().err


FACTORIES = """
import sys
import torch
from torch import nn

class Forward(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.body, self.act = nn.Conv2d(3, 5, 3), act

    def forward(self, x):
        self.act()
        return self.body(x).mean((2, 3))

class Stubborn(nn.Conv2d):
    def eval(self):
        raise AttributeError("never")

def meta():
    with torch.device("meta"):
        return nn.Conv2d(3, 5, 3)

def exits():
    sys.exit(0)

def raises():
    raise GeneratorExit("odd")

def silent():
    raise KeyError

def stubborn():
    return Stubborn(3, 5, 3)

def exits_forward():
    return Forward(lambda: sys.exit(3))
"""


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("meta", "on the meta device, which has no values; build it on the CPU"),
        ("exits", "exits() fails: it calls exit(0)"),
        ("raises", "raises() fails: GeneratorExit: odd"),
        ("silent", "silent() fails: KeyError"),
        ("stubborn", "AttributeError: never"),
        ("exits_forward", "exit(3)"),
    ],
)
def test_a_factory_may_do_anything(function: str, words: str, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "made.py").write_text(FACTORIES)
    given = ["explain", photo(tmp_path), "--model", f"{tmp_path / 'made.py'}:{function}", "--out", tmp_path / "out"]
    assert words in refused(*given)
    assert {*os.listdir(tmp_path)} - {"__pycache__"} == {"a.png", "made.py"}


def test_a_file_that_exits_when_it_is_read(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "made.py").write_text("raise SystemExit")
    assert "made.py fails: it calls exit(None)" in refused("layers", "--model", f"{tmp_path / 'made.py'}:make")
