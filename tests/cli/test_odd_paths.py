"""Paths and values that no system takes end with a plain line, and leave nothing behind."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_process import photo

Refused = Callable[..., str]
LONG = "x" * 300


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explain", "a\0b.png"], "embedded null byte"),
        (["explain", LONG], "cannot be opened: File name too long"),
        (["explain", "{pipe}"], "is no regular file but a named pipe"),
        (["demo", "--image", "a\0b.png"], "embedded null byte"),
        (["demo", "--image", "{pipe}"], "is no regular file but a named pipe"),
        (["explain", "{photo}", "--weights", "a\0b.pth"], "embedded null byte"),
        (["explain", "{photo}", "--weights", LONG], "File name too long"),
        (["explain", "{photo}", "--weights", "{pipe}"], "is no regular file but a named pipe"),
        (["explain", "{photo}", "--weights", "/dev/null"], "is no regular file but a device"),
        (["explain", "{photo}", "--out", "a\0b"], "embedded null byte"),
        (["explain", "{photo}", "--out", LONG], "choose another --out"),
        (["explain", "{photo}", "--out", f"{LONG}/below"], "choose another --out"),
        (["explain", "{photo}", "--out", "{pipe}"], "choose another --out"),
        (["layers", "--model", f"{LONG}.py:make"], "File name too long"),
        (["layers", "--model", "a\0b.py:make"], "is not a path"),
        (["layers", "--model", "{pipe}.py:make"], "is no regular file but a named pipe"),
        (["layers", "--model", "torchvision:\0"], "no torchvision classifier"),
        (["explain", "{photo}", "--layer", "a\0b"], "no layer"),
        (["explain", "{photo}", "--target", "a\0b"], "no class"),
        (["explain", "{photo}", "-t", "occlusion", "-p", f"window={'[' * 100_000}"], "not a TOML value"),
        (["explain", "{photo}", "-t", "occlusion", "-p", f"window={'9' * 5000}"], "not a TOML value"),
        (["explain", "{photo}", "-t", "occlusion", "-p", f"window={'9' * 40}"], "below 2**63"),
        (["explain", "{photo}", "-t", "occlusion", "-p", "baseline=nan"], "baseline"),
        (["explain", "{photo}", "-t", "a\0b"], "no attributor"),
        (["check", "a\0b:C"], "cannot import"),
        (["check", "..:C"], "cannot import"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_paths_and_values_that_no_system_takes(
    arguments: list[str], words: str, spec: str, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for pipe in ("pipe", "pipe.py"):
        os.mkfifo(tmp_path / pipe)
    given = [text.replace("{photo}", str(photo(tmp_path))).replace("{pipe}", "pipe") for text in arguments]
    if given[0] in ("explain", "demo"):
        given += ["--model", spec] + ([] if "--out" in given else ["--out", "out"])
    assert words in refused(*given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", ["image", "weights", "script", "out"])
def test_a_folder_one_may_not_enter(
    where: str, spec: str, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, locked = photo(tmp_path), tmp_path / "locked"

    def closed(call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(path: Any, *arguments: Any, **options: Any) -> Any:
            if "locked" in str(path):
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *arguments, **options)

        return guarded

    for name in ("stat", "lstat", "mkdir", "open", "rmdir"):  # root may enter any folder
        monkeypatch.setattr(os, name, closed(getattr(os, name)))
    given = {
        "image": ["explain", locked / "a.png", "--model", spec],
        "weights": ["explain", image, "--model", spec, "--weights", locked / "a.pth"],
        "script": ["explain", image, "--model", f"{locked / 'a.py'}:make"],
        "out": ["explain", image, "--model", spec, "--out", locked / "out"],
    }[where]
    told = refused(*given, *([] if where == "out" else ["--out", tmp_path / "out"]))
    assert "Permission denied" in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_image_of_the_longest_name_gets_results(tmp_path: Path, spec: str, attribution: Callable[..., Any]) -> None:
    images = [photo(tmp_path, "é" * 125 + end) for end in (".png", "a.png")]
    outcome = attribution("explain", *images, "--model", spec, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome
    stem = "é" * 60
    endings = ("grad_cam.png", "grad_cam.safetensors")
    expected = sorted(f"{name}.{end}" for name in (stem, f"{stem}-2") for end in endings)
    assert sorted(os.listdir(tmp_path / "out")) == expected
