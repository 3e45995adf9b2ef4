"""``--score`` and ``--output`` ask what the core is asked; mistakes in them end with a line or two and code 2."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attribution import (
    ClassScore,
    FinerScore,
    FunctionScore,
    GradCAM,
    LayerScore,
    Occlusion,
    RegionScore,
    Score,
    ValueScore,
    explain,
    load,
    zoo,
)
from attribution.cli import scores
from attribution.images.files import read

Command = Callable[..., Any]

MODEL = """
import dataclasses
import torch
from torch import nn
from tests.cli.conftest import MODEL
exec(MODEL)

class Segmentation(nn.Module):
    def __init__(self):
        super().__init__()
        inner = small_cnn()
        self.stem, self.body, self.head = inner.stem, inner.body, nn.Conv2d(8, 3, 1)

    def forward(self, x):
        maps = self.head(self.body(self.stem(x).relu()).relu())
        means = maps.mean(dim=(2, 3))
        return {"out": maps, "heads": [means, means.tanh()], "value": maps.mean((1, 2, 3))}

def segmentation():
    torch.manual_seed(0)
    return dataclasses.replace(make(), model=Segmentation(), labels=None)
"""
FUNCTIONS = """
def brightest(output):
    return output["out"].amax(dim=(2, 3))

def first(output, examples):
    return output["out"][:, 0].mean(dim=(1, 2)) + 0 * examples

def three(a, b, c):
    return a

number = 3
"""

SCORES: dict[str, tuple[list[str], Callable[[Any], Score | None]]] = {
    "region": (["--score", "region:2", "--output", "out"], lambda f: RegionScore(2, output="out")),
    "value": (["--score", "value", "--output", "value"], lambda f: ValueScore(output="value")),
    "value, index": (["--score", "value:1", "--output", "heads.0"], lambda f: ValueScore(1, output="heads.0")),
    "value, indices": (["--score", "value:1,2,-1", "--output", "out"], lambda f: ValueScore((1, 2, -1), output="out")),
    "sigmoid": (["--score", "sigmoid", "--output", "heads.1"], lambda f: ClassScore(of="sigmoid", output="heads.1")),
    "logit": (["--score", "logit", "--output", "heads.0"], lambda f: ClassScore(of="logit", output="heads.0")),
    "class": (
        ["--score", "log_probability", "--output", "heads.0", "--target", "1"],
        lambda f: ClassScore(1, of="log_probability", output="heads.0"),
    ),
    "output": (["--output", "heads.1", "--target", "2"], lambda f: ClassScore(2, output="heads.1")),
    "finer": (["--score", "finer", "--output", "heads.0"], lambda f: FinerScore(ClassScore(output="heads.0"))),
    "finer, all of it": (
        ["--score", "finer:2,0:1.5:softmax", "--output", "heads.1", "--target", "1"],
        lambda f: FinerScore(ClassScore(1, output="heads.1"), references=(2, 0), strength=1.5, weights="softmax"),
    ),
    "finer, one class": (
        ["--score", "finer:2,:0", "--output", "heads.0"],
        lambda f: FinerScore(ClassScore(output="heads.0"), references=(2,), strength=0),
    ),
    "layer": (["--score", "layer:body:3"], lambda f: LayerScore("body", 3)),
    "file": (["--score", "{functions}:brightest"], lambda f: FunctionScore(f["brightest"])),
    "file, examples": (["--score", "{functions}:first"], lambda f: FunctionScore(f["first"])),
    "module": (["--score", "scores_of_mine:brightest"], lambda f: FunctionScore(f["brightest"])),
}


@pytest.fixture
def segmentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "segmentation.py").write_text(MODEL)
    (tmp_path / "scores_of_mine.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    return f"{tmp_path / 'segmentation.py'}:segmentation"


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("technique", [GradCAM(layers=("stem",)), Occlusion(window=6, stride=6)], ids=lambda t: t.name)
def test_a_score_that_is_typed_is_the_cores(
    name: str, technique: Any, segmentation: str, photo: Path, out: Path, attribution: Command
) -> None:
    words, asked = SCORES[name]
    words = [word.format(functions=photo.with_name("scores_of_mine.py")) for word in words]
    words += ["-l", "stem"] if technique.name == "grad_cam" else ["-p", "window=6", "-p", "stride=6"]
    done = attribution("explain", photo, "-t", technique.name, "-m", segmentation, "-o", out, *words)
    assert (done.code, done.err) == (0, ""), done.err
    found = load(out / f"{photo.stem}.{technique.name}.safetensors")
    functions: dict[str, Any] = {}
    exec(FUNCTIONS, functions)
    loaded = zoo.load(segmentation)
    right = explain(loaded.model, loaded.inputs(read(photo)), technique, target=asked(functions))
    assert torch.equal(found.map, right.map)
    assert found.names == right.names
    assert f"{right.names[0][0]}" in done.out or right.target is not None
    assert right.scores is not None
    assert f"{right.scores[0, 0]:.3g}" in done.out


def test_backends_are_compared_by_it(segmentation: str, photo: Path, out: Path, attribution: Command) -> None:
    done = attribution(
        *("compare", photo, "-m", segmentation, "-o", out, "-l", "stem", "--score", "region:2", "--output", "out")
    )
    assert (done.code, done.err) == (0, "")
    assert "captum, hooks: agree" in done.out or "hooks, captum: agree" in done.out


MISTAKES = [
    (["--score", "softmax"], "no score 'softmax'"),
    (["--score", "sigmod"], "nearest: 'sigmoid'"),
    (["--score", ""], "no score ''"),
    (["--score", "region"], "'' is no index; write region:CHANNEL"),
    (["--score", "region:cat"], "'cat' is no index"),
    (["--score", "region:-1"], "'-1' is no index"),
    (["--score", "region:9", "--output", "out"], "channel 9 is out of range"),
    (["--score", "value:a"], "'a' is no index; write value:3"),
    (["--score", "value:"], "'' is no index"),
    (["--score", "value:" + "9" * 5000], "is no index"),
    (["--score", "finr"], "nearest: 'finer'"),
    (["--score", "finer:"], "write finer:REFERENCES:STRENGTH:WEIGHTS"),
    (["--score", "finer:1:1:softmax:"], "write finer:REFERENCES:STRENGTH:WEIGHTS"),
    (["--score", "finer:cat"], "'cat' is no index"),
    (["--score", "finer:0"], "FinerScore.references is 0"),
    (["--score", "finer:1,1"], "each once"),
    (["--score", "finer:3:much"], "'much' is no number"),
    (["--score", "finer:3:-1"], "give a finite number of at least 0"),
    (["--score", "finer:3:nan"], "give a finite number of at least 0"),
    (["--score", "finer:3:1:soft"], "give 'equal' or 'softmax'"),
    (["--score", "finer:9,1", "--output", "heads.0"], "names class 9; the model has 3"),
    (["--score", "layer:body"], "names no channel"),
    (["--score", "layer:bdy:1"], "nearest: 'body'"),
    (["--score", "nowhere_at_all:brightest"], "cannot import nowhere_at_all"),
    (["--score", "scores_of_mine:brightst"], "nearest: 'brightest'"),
    (["--score", "scores_of_mine:number"], "no function 'number'"),
    (["--score", "scores_of_mine:three"], "'three' takes a, b, c"),
    (["--score", "{functions}:brightst"], "nearest: 'brightest'"),
    (["--score", "{functions}:three"], "'three' takes a, b, c"),
    (["--score", "missing.py:three"], "no file missing.py"),
    (["--score", "region:1", "--target", "1"], "leave --target out"),
    (["--score", "layer:body:1", "--output", "out"], "leave --output out"),
    (["--output", "nothing"], "output is 'nothing'"),
    (["--output", " "], "--output is empty"),
    (["-t", "activations", "--score", "value"], "leave --score out"),
    (["-t", "activations", "--output", "out"], "leave --output out"),
    (["-t", "occlusion", "-p", 'score="logit"'], "told by --score logit"),
    (["-t", "occlusion", "-p", "score=logit"], "told by --score logit"),
]


@pytest.mark.parametrize(("words", "told"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_told_in_plain_words(
    words: list[str], told: str, segmentation: str, photo: Path, out: Path, refused: Command
) -> None:
    functions = photo.with_name("scores_of_mine.py")
    for command in ("explain", "compare"):
        said = refused(command, photo, "-m", segmentation, "-o", out, *(w.format(functions=functions) for w in words))
        assert told in said
        assert len(said) < 600
    assert not out.exists()


def test_classes_alone_stay_what_they_were() -> None:
    assert scores.parse(None, None, targets=True).asked([[1, 2]]) == [[1, 2]]
