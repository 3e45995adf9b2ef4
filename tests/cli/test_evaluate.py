"""``attribution evaluate``: one table, one figure, CSV files, and a verdict per technique."""

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import paint

QUICK = ("--steps", "3", "--baseline", "mean")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven photos, one of them in a folder inside, and one file that is none."""
    found = tmp_path / "photos"
    for seed in range(6):
        paint(found / f"{seed}.png", seed=seed)
    paint(found / "more" / "6.png", seed=6)
    (found / "7.jpg").write_text("no photo")
    (found / "notes.txt").write_text("no photo either")
    return found


def scores(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder(attribution: Callable[..., Any], spec: str, folder: Path, out: Path) -> None:
    words = ("evaluate", folder, "-m", spec, "-t", "saliency", "-t", "input_x_gradient", *QUICK, "-o", out, "-q")
    done = attribution(*words)
    assert (done.code, done.err) == (1, "")
    tables = {f"{name}.{kind}" for name in ("scores", "costs", "curves") for kind in ("csv", "parquet")}
    made = tables | {"curves.png", "extremes.png", "table.md"}
    assert {*os.listdir(out)} - {".lock"} == made | {"run.json", "items.json", "shards", "costs", "failures.csv"}
    lines = done.out.splitlines()
    assert lines[0].split() == ["map", "srg", "mean", "forwards", "a", "photo", "seconds", "a", "photo"]
    assert [line.split()[0] for line in lines[3:6]] == ["random", "centre", "edges"]
    assert lines[6] == "Means over photos, with intervals of 95 %; srg: higher is better."
    assert lines[7] == "random, centre, edges are controls, which never see the model."
    assert sum(" by srg: " in line for line in lines) == 2
    assert any(line.startswith(("saliency beats", "saliency and", "input_x_gradient")) for line in lines)
    assert {line for line in lines if line.startswith(f"{out}{os.sep}")} == {str(out / name) for name in made}
    assert lines[-1] == f"{out}  8 items · 1 failed: {out / 'failures.csv'}"
    assert "7.jpg is no image of a known format" in (out / "failures.csv").read_text()
    assert {row["photo"] for row in scores(out)} == {f"{n}.png" for n in range(6)} | {"more/6.png"}
    table = (out / "table.md").read_text()
    assert "7 photos; mean (95 % interval" in table
    assert "insertion mean" in table
    assert "deletion mean" in table

    before = (out / "scores.csv").read_bytes()
    again = attribution(*words)
    assert (again.code, again.out) == (1, done.out)
    assert (out / "scores.csv").read_bytes() == before
    other = attribution("evaluate", folder, "-m", spec, "-t", "saliency", *QUICK, "-o", out, "-q")
    assert other.code == 2
    assert "holds another run" in other.err
    paint(folder / "7.png", seed=7).rename(folder / "7.jpg")  # the bad photo is mended
    mended = attribution(*words)
    assert mended.code == 0
    assert "8 photos; mean" in (out / "table.md").read_text()
    assert not (out / "failures.csv").exists()


def test_a_list_names_classes(attribution: Callable[..., Any], spec: str, folder: Path, out: Path) -> None:
    listed = folder / "list.csv"
    listed.write_text("path,target\n0.png,cup\n1.png,4\n2.png,cup\n")
    done = attribution("evaluate", listed, "-m", spec, "-t", "saliency", *QUICK, "--metric", "road", "-o", out, "-q")
    assert done.code == 0
    targets = {row["photo"]: row["target"] for row in scores(out)}
    assert targets == {"0.png": "class 2", "1.png": "class 4", "2.png": "class 2"}
    assert {row["metric"] for row in scores(out)} == {"road"}


def test_targets_parameters_metrics_and_a_sample(
    attribution: Callable[..., Any], spec: str, folder: Path, out: Path
) -> None:
    (folder / "7.jpg").unlink()
    words = (
        "-t",
        "occlusion",
        "-p",
        "occlusion.window=8",
        "-p",
        "occlusion.stride=6",
        "--metric",
        "deletion",
        "--metric",
        "infidelity",
    )
    named = ("--target", "cup", "--sample", "3")
    done = attribution("evaluate", folder, "-m", spec, *words, *named, *QUICK, "-o", out, "-q")
    assert (done.code, done.err) == (0, "")
    rows = scores(out)
    assert {row["target"] for row in rows} == {"class 2"}
    assert {row["metric"] for row in rows} == {"deletion", "infidelity"}
    assert len({row["photo"] for row in rows}) == 3
    assert "With fewer than 6 photos no two maps are told apart." in done.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("missing",), "no folder or list 'missing'"),
        ((".", "-t", "grad_cam"), "has no file that ends in .jpg"),
        (("photos", "-t", "gradcam"), "no attributor gradcam.hooks; nearest"),
        (("photos", "-t", "activations"), "activations gives no heatmap"),
        (("photos", "--metric", "sgr"), "no metric 'sgr'; nearest: 'srg'"),
        (("photos", "--baseline", "gray"), "--baseline 'gray' is no baseline"),
        (("photos", "-p", "window=8"), "grad_cam has no parameter 'window'"),
        (("photos", "--steps", "1"), "SRG.steps is 1"),
        (("photos", "--target", "mug"), "mug"),
    ],
)
def test_a_mistake_is_told(
    attribution: Callable[..., Any],
    spec: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    told: str,
) -> None:
    place = tmp_path / "here"
    place.mkdir()
    if words[0] == "photos":
        paint(place / "photos" / "0.png", seed=0)
    monkeypatch.chdir(place)
    done = attribution("evaluate", *words, "-m", spec, "-o", place / "out", "-q")
    assert done.code == 2
    assert told in done.err
    assert not (place / "out").exists()
