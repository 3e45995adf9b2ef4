"""Files that GitHub, package indices and tools read: they parse, and say what the project says."""

import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import attribution

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FILES = sorted([*ROOT.glob("*.cff"), ROOT / ".pre-commit-config.yaml", *(ROOT / ".github").rglob("*.yml")])


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_parses(path: Path) -> None:
    assert isinstance(read(path), dict)


def test_the_version_is_one() -> None:
    assert attribution.__version__ == PROJECT["version"] == read(ROOT / "CITATION.cff")["version"]
    assert read(ROOT / "CITATION.cff")["license"] == PROJECT["license"]
    assert [each["name"] for each in read(ROOT / "CITATION.cff")["authors"]] == [
        each["name"] for each in PROJECT["authors"]
    ]


def test_the_checks_try_every_python_that_is_promised() -> None:
    jobs = read(ROOT / ".github/workflows/checks.yml")["jobs"]
    tried = [each["python"] for each in jobs["versions"]["strategy"]["matrix"]["include"]]
    promised = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert tried == promised
    assert any(step.get("run") == ".ci/run" for step in jobs["all"]["steps"])


def test_the_forms_ask_for_what_is_needed() -> None:
    form = read(ROOT / ".github/ISSUE_TEMPLATE/wrong_number.yml")
    needed = {field["id"] for field in form["body"] if field.get("validations", {}).get("required")}
    assert needed == {"program", "found", "provenance"}


def test_commands_before_a_commit_exist() -> None:
    (local,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    commands = [shlex.split(hook["entry"]) for hook in local["hooks"]]
    assert [command[:2] for command in commands] == [["uv", "run"]] * 3
    folder = Path(sys.executable).parent
    assert [command[2] for command in commands if not shutil.which(command[2], path=str(folder))] == []


def test_the_command_knows_its_versions() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "attribution", "--version"], capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith(f"torch-attribution {PROJECT['version']}, torch ")
