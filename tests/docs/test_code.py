"""The code in the pages does what it says, and the command lines are understood."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from attribution import registry, zoo
from attribution.cli import app, main, question
from attribution.errors import InputError

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
CHEAP = ("activations", "grad_cam")


def blocks(page: Path, *languages: str) -> list[tuple[int, str]]:
    """(line of the first line, text) of each fenced block in one of the languages."""
    found: list[tuple[int, str]] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    start = language = None
    for number, line in enumerate(lines, 1):
        if not line.startswith("```"):
            continue
        if start is None:
            start, language = number, line.removeprefix("```").strip()
        else:
            if language in languages:
                found.append((start + 1, "\n".join(lines[start : number - 1])))
            start = None
    assert start is None, f"{page}:{start}: the block is never closed"
    return found


def execute(page: Path) -> None:
    """Run the Python blocks of a page in one namespace; errors name the page and its line."""
    namespace: dict[str, Any] = {"__name__": page.stem}
    for line, text in blocks(page, "python"):
        exec(compile("\n" * (line - 1) + text, str(page), "exec"), namespace)


def commands(page: Path) -> list[tuple[int, list[str]]]:
    """(line, words) of each `attribution` command in console and bash blocks, without what starts it."""
    found = []
    for first, text in blocks(page, "console", "bash"):
        for line, command in enumerate(text.splitlines(), first):
            for part in command.removeprefix("$ ").split("&&"):
                words = shlex.split(part, comments=True)
                if "attribution" in words:
                    found.append((line, words[words.index("attribution") + 1 :]))
    return found


def understand(words: list[str]) -> None:
    """Parse a command without running it: options by Typer, parameters by the technique."""
    # Typer's command classes have moved between packages; what is asked of them has not.
    group: Any = typer.main.get_command(app)
    name, *rest = words
    options = group.commands[name].make_context(name, rest).params
    if name in ("explain", "compare"):
        images = [options["image"]] if options.get("image") else options.get("images") or []
        layers, targets, settings = (options[key] or [] for key in ("layer", "target", "param"))
        score = None if ".py:" in str(options["score"]) else options["score"]  # the pages bring no such files
        named, output = options["technique"] or ["grad_cam"], options["output"]
        question.parse(named, options.get("backend"), images, layers, targets, settings, score, output)


@pytest.fixture(scope="module")
def coffee() -> Image.Image:
    return zoo.sample_photo("coffee")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coffee: Image.Image) -> Iterator[Path]:
    """An empty working folder with the photo that the pages speak of; attributors registered inside are forgotten."""
    monkeypatch.chdir(tmp_path)
    coffee.save(tmp_path / "coffee.png")
    known = registry.available()
    yield tmp_path
    new = set(registry.available()) - set(known)
    for cls in {registry.get(technique, backend) for technique, backend in new}:  # one may compute several techniques
        registry.unregister(cls)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda page: page.stem)
def test_python_runs(page: Path, folder: Path) -> None:
    execute(page)


def test_a_wrong_line_is_caught_where_it_stands(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as caught:
        execute(page)
    assert (str(caught.traceback[-1].path), caught.traceback[-1].lineno + 1) == (str(page), 8)


COMMANDS = [(page, line, words) for page in PAGES for line, words in commands(page)]


@pytest.mark.parametrize(("page", "line", "words"), COMMANDS, ids=[f"{p.stem}-{line}" for p, line, _ in COMMANDS])
def test_commands_are_understood(page: Path, line: int, words: list[str], folder: Path) -> None:
    if words[-1] == "--help" or words[0] == "COMMAND":
        return
    understand(words)


def test_the_pages_show_every_command() -> None:
    group: Any = typer.main.get_command(app)
    assert {words[0] for _, _, words in COMMANDS} == set(group.commands)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["explain", "coffee.png", "--techniqe", "grad_cam"], "--techniqe"),
        (["explain", "coffee.png", "-t", "occlusion", "-p", "windw=48"], "windw"),
    ],
)
def test_a_misspelt_command_is_caught(words: list[str], error: str) -> None:
    usage_error = typer.BadParameter.__mro__[1]
    with pytest.raises((usage_error, InputError)) as caught:
        understand(words)
    assert error in str(getattr(caught.value, "message", caught.value))


def cheap(words: list[str]) -> bool:
    """Quick, and needs neither a file that the pages do not bring nor weights from elsewhere."""
    if words[0] in ("explain", "compare"):
        return "coffee.png" in words and any(name in words for name in CHEAP)
    return words[0] in ("list", "layers")


RUN = sorted({tuple(words) for _, _, words in COMMANDS if cheap(words)})


@pytest.mark.parametrize("words", RUN, ids=" ".join)
def test_cheap_commands_run(words: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert {"list": "grad_cam", "layers": "features.12", "explain": ".safetensors", "compare": "agree"}[
        words[0]
    ] in capsys.readouterr().out
