"""``attribution report``: images and runs as a page, and what is refused."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attribution import images, registry
from attribution.cli import report
from attribution.cli.commands.app import RUN
from attribution.report import evidence
from attribution.runs import folder
from attribution.zoo import load as load_model
from tests.cli.test_early import PROGRAM
from tests.report.reading import Element, pixels, read

CHEAP = ("-t", "activations", "-t", "grad_cam", "-l", "body")


def texts(root: Element, tag: str, **attributes: str) -> list[str]:
    return [each.text for each in root.all(tag, **attributes)]


def test_a_photo_becomes_a_page(attribution: Callable[..., Any], spec: str, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = attribution("report", photo, *CHEAP, "--model", spec, "--target", "cup", "--target", "4", "--out", out)
    assert (done.code, done.err, done.out) == (0, "", f"{out}\n")
    root = read(out.read_text(encoding="utf-8"))
    assert (texts(root, "h1"), texts(root, "h2")[0]) == (["photo.png"], "Maps")
    loaded = load_model(spec)
    inputs = loaded.inputs(images.read(photo))
    seen = pixels(root.one("figure", class_="photo").one("img").attributes["src"])[..., :3]
    assert np.abs(seen - loaded.picture(inputs)[0]).mean() < 0.05
    top = loaded.top(loaded.model(inputs))[0]
    assert texts(root.one("table", class_="top").one("tbody"), "th") == [label for label, _, _ in top]
    assert [each.attributes["data-target"] for each in root.all("figure", class_="tile")] == ["cup (2)", "spoon (4)"]
    assert {row.all("td")[-1].text for row in root.one("section", class_="agreement").one("tbody").all("tr")} == {
        "agrees"
    }
    command = shlex.split(root.one("code", id="command").text)
    first = out.read_bytes()
    out.unlink()
    assert attribution(*command[1:]).code == 0
    assert out.read_bytes() == first


def test_another_question_is_another_command() -> None:
    options = {"-t": ["a", "b"], "--stretch": True, "--no-compare": False, "--out": Path("x y.html"), "--weights": None}
    assert report.command_of("report", ["it's.png"], options) == (
        "attribution report 'it'\"'\"'s.png' -t a -t b --stretch --out 'x y.html'"
    )
    assert report.command_of("report", ["-x.png"], {"-o": "a"}).endswith("report -o a -- -x.png")
    hostile = "a\n\u202eb\udcff'.png"
    line = report.command_of("report", [hostile], {})
    assert line.isprintable()
    told = subprocess.run(["bash", "-c", f"printf %s {line.partition('report ')[2]}"], capture_output=True, check=True)
    assert told.stdout == os.fsencode(hostile)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A run of five photos, one of them broken; the photos; and the model."""
    from attribution.cli import main
    from tests.cli.conftest import MODEL, paint

    root = tmp_path_factory.mktemp("run")
    (root / "model.py").write_text(MODEL)
    for k in range(5):
        paint(root / "photos" / f"{k}.png", seed=k)
    (root / "photos" / "2.png").write_text("no image")
    spec = f"{root / 'model.py'}:make"
    assert main(["run", str(root / "photos"), "-t", "grad_cam", "-m", spec, "-o", str(root / "run"), "-q"]) == 1
    return root / "run", root / "photos", spec


def test_a_run_becomes_a_page(attribution: Callable[..., Any], trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    run, photos, spec = trained
    page = tmp_path / "run.html"
    assert attribution("report", run, "--out", page).code == 0
    root = read(page.read_text(encoding="utf-8"))
    articles = root.all("article")
    assert [each.one("h2").text for each in articles] == ["0.png", "1.png", "3.png", "4.png"]
    assert [link.attributes["href"] for link in root.one("nav").all("a")] == [f"#item-{k}" for k in range(4)]
    assert "1 failed and is not shown: 2.png" in root.one("header").text
    assert "what the model of the run saw of them is not known" in root.one("header").text
    for article in articles:  # the usual model is another one, so that photos stand whole beside their maps
        shown = article.one("figure", class_="photo").one("img")
        with Image.open(photos / article.one("h2").text) as photo:
            assert (shown.attributes["width"], shown.attributes["height"]) == tuple(map(str, photo.size))
            drawn = pixels(shown.attributes["src"])[..., :3]
            assert np.abs(drawn - np.asarray(photo.convert("RGB")) / 255).mean() < 0.05
        assert shown.attributes["class"] == "whole"
    assert attribution("report", run, "--photos", photos, "-m", spec, "--most", 2, "--out", page).code == 0
    root = read(page.read_text(encoding="utf-8"))
    assert [each.one("h2").text for each in root.all("article")] == ["0.png", "3.png"]
    assert "2 of 4 items are shown" in root.one("header").text
    loaded = load_model(spec)
    for name, article in zip(("0.png", "3.png"), root.all("article"), strict=True):
        wanted = loaded.picture(loaded.inputs(images.read(photos / name)))[0]
        drawn = pixels(article.one("figure", class_="photo").one("img").attributes["src"])[..., :3]
        assert np.abs(drawn - wanted).mean() < 0.05
        assert np.abs(drawn - wanted[::-1]).mean() > 0.05


def test_a_photo_that_has_changed_is_not_shown_as_the_one_of_the_run(
    attribution: Callable[..., Any], trained: tuple[Path, Path, str], tmp_path: Path, painted: Callable[..., Path]
) -> None:
    run, photos, spec = trained
    other = tmp_path / "photos"
    other.mkdir()
    (other / "0.png").write_bytes((photos / "0.png").read_bytes())
    painted(other / "1.png", seed=77)
    assert attribution("report", run, "--photos", other, "-m", spec, "-o", tmp_path / "x.html").code == 0
    articles = read((tmp_path / "x.html").read_text(encoding="utf-8")).all("article")
    assert [len(each.all("figure", class_="photo")) for each in articles] == [1, 0, 0, 0]
    assert "another one than the run saw" in articles[1].text
    assert "not where --photos looks" in articles[2].text


def test_a_run_finds_its_photos_again(
    attribution: Callable[..., Any], refused: Callable[..., str], trained: tuple[Path, Path, str], tmp_path: Path
) -> None:
    """Both are moved together; the model is named, and then no photo lies there any more."""
    run, photos = (shutil.copytree(each, tmp_path / each.name) for each in trained[:2])
    spec, page = trained[2], tmp_path / "x.html"
    assert attribution("report", run, "-m", spec, "-o", page).code == 0
    articles = read(page.read_text(encoding="utf-8")).all("article")
    loaded = load_model(spec)
    for article in articles:
        wanted = loaded.picture(loaded.inputs(images.read(photos / article.one("h2").text)))[0]
        shown = article.one("figure", class_="photo").one("img")
        assert np.abs(pixels(shown.attributes["src"])[..., :3] - wanted).mean() < 0.05
        assert "class" not in shown.attributes
        assert len(article.one("table", class_="top").one("tbody").all("tr")) == 5
    (photos / "0.png").write_bytes((photos / "1.png").read_bytes())
    (photos / "3.png").unlink()
    assert attribution("report", run, "-o", page).code == 0
    articles = read(page.read_text(encoding="utf-8")).all("article")
    assert [len(each.all("figure", class_="photo")) for each in articles] == [0, 1, 0, 1]
    assert "another one than the run saw" in articles[0].text
    assert "not where the run saw it" in articles[2].text
    for photo in photos.iterdir():
        photo.unlink()
    assert attribution("report", run, "-o", page).code == 0
    assert "No photos are shown: " in read(page.read_text(encoding="utf-8")).one("header").text
    shutil.rmtree(photos)
    assert attribution("report", run, "-o", page).code == 0
    root = read(page.read_text(encoding="utf-8"))
    assert root.all("figure", class_="photo") == []
    assert f"No photos are at {run / '..' / 'photos'} any more; --photos shows them." in root.one("header").text
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({key: value for key, value in record.items() if key != "place"}))
    assert attribution("report", run, "-o", page).code == 0
    assert "does not tell where its photos lie" in read(page.read_text(encoding="utf-8")).one("header").text
    assert "give --photos too" in refused("report", run, "-m", spec, "-o", page)


def test_a_run_of_the_usual_model_needs_no_options(
    attribution: Callable[..., Any], trained: tuple[Path, Path, str], tmp_path: Path
) -> None:
    """``attribution run photos`` and ``attribution report run``: maps lie over what the model saw."""
    run, page = tmp_path / "run", tmp_path / "x.html"
    assert attribution("run", trained[1], "-t", "grad_cam", "-o", run, "-q", "--stretch").code == 1
    assert attribution("report", run, "--most", 1, "-o", page).code == 0
    article = read(page.read_text(encoding="utf-8")).one("article")
    loaded = load_model("bundled:squeezenet1_1")
    wanted = loaded.picture(loaded.inputs(images.read(trained[1] / "0.png"), stretch=True))[0]
    drawn = pixels(article.one("figure", class_="photo").one("img").attributes["src"])[..., :3]
    assert np.abs(drawn - wanted).mean() < 0.05


def test_what_a_run_did_not_see_is_refused(
    refused: Callable[..., str], trained: tuple[Path, Path, str], tmp_path: Path
) -> None:
    run, photos, spec = trained
    out = ("--out", tmp_path / "x.html")
    assert "whose maps are made; leave --technique out" in refused("report", run, "-t", "saliency", *out)
    assert "whose maps are made; leave --backend out" in refused("report", run, "-b", "hooks", *out)
    assert "whose maps are made; leave --compare out" in refused("report", run, "--no-compare", *out)
    assert "--most is of a run" in refused("report", photos / "0.png", "--most", 3, *out)
    assert "reads them by" in refused("report", run, "-m", spec, "--photos", photos, "--stretch", *out)
    changed = tmp_path / "model.py"
    changed.write_text(Path(spec.rpartition(":")[0]).read_text().replace("small_cnn()", "small_cnn(seed=1)"))
    assert "other weights" in refused("report", run, "-m", f"{changed}:make", "--photos", photos, *out)
    assert "--photos is of a run" in refused("report", photos / "0.png", "--photos", photos, *out)
    assert {*os.listdir(tmp_path)} - {"__pycache__"} == {"model.py"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report"], "name the image of a report"),
        (["report", "missing.jpg"], "no file missing.jpg"),
        (["report", "."], ". holds no run; give what --out of `attribution run` named"),
        (["report", ".", "missing.jpg"], ". is a folder; give one run, or images alone"),
        (["report", "{photo}", "--out", "page.pdf"], "page.pdf does not end in .html"),
        (["report", "{photo}", "--out", "none/page.html"], "the folder none does not exist"),
        (["report", "{photo}", "--evidence", "."], ". holds no evaluation"),
        (["report", "{photo}", "-t", "gradcam"], "no technique 'gradcam'"),
        (["report", "{photo}", "-p", "windw=3"], "no technique asked for has a parameter 'windw'"),
    ],
)
def test_a_mistake_costs_no_import(arguments: list[str], words: str, photo: Path, tmp_path: Path) -> None:
    given = [argument.format(photo=photo) for argument in arguments]
    (tmp_path / "empty").mkdir()
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, *given], capture_output=True, text=True, check=True, cwd=tmp_path / "empty"
    )
    assert words in found.stderr
    assert found.stdout.split() == ["2", "False"]
    assert os.listdir(tmp_path / "empty") == []


def test_names_of_files_are_those_of_the_rooms_that_write_them() -> None:
    assert RUN == folder._RUN == evidence.RUN


def test_a_backend_that_fails_is_named(
    attribution: Callable[..., Any], spec: str, photo: Path, tmp_path: Path, registered: Any
) -> None:
    class Refusing(registry.get("grad_cam", "hooks")):  # type: ignore[misc]
        backend = "refusing"

        def compute(self, run: Any) -> Any:
            from attribution import ModelError

            raise ModelError("not this one <b>")

        compute_many = compute

    registered(Refusing)
    done = attribution("report", photo, *CHEAP[2:], "-m", spec, "-o", tmp_path / "x.html")
    assert done.code == 0, done
    section = read((tmp_path / "x.html").read_text(encoding="utf-8")).one("section", class_="agreement")
    assert "Not asked: refusing: grad_cam: not this one <b>" in section.text
    assert "agree" in section.one("p", class_="verdict").text
