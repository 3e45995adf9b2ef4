"""What is refused because it is another run, and what is computed again."""

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from attribution import (
    DifferenceScore,
    Execution,
    FunctionScore,
    Saliency,
    runs,
)
from attribution.errors import InputError, OutputError
from attribution.runs import fingerprint
from attribution.runs.folder import RunFolder
from attribution.testing import small_cnn
from tests.runs.asked import ran
from tests.runs.data import TECHNIQUES, contents, painted, to_tensor


def _other_weights() -> nn.Module:
    model = small_cnn()
    with torch.no_grad():
        next(model.parameters())[0, 0, 0, 0] += 1e-3
    return model


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "technique": ({"techniques": {**TECHNIQUES, "saliency": Saliency(absolute=False)}}, "work.techniques.saliency"),
    "one technique less": ({"techniques": {"cam": TECHNIQUES["cam"]}}, "work.techniques.saliency"),
    "backend": ({"backend": "captum"}, "work.backend"),
    "target": ({"target": 1}, "work.target"),
    "weights": ({"model": _other_weights()}, "model.weights"),
    "structure": ({"model": small_cnn(classes=6)}, "model.structure"),
    "labels": ({"labels": ["a", "b", "c", "d", "e"]}, "labels was"),
    "threads": ({"threads": 2}, "threads was 1 and is 2"),
    "precision": ({"execution": Execution(autocast=torch.bfloat16)}, "work.execution.autocast"),
    "items": ({"count": 12}, "items was"),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_another_run_is_refused_and_named(whole: Path, change: str) -> None:
    options, said = CHANGES[change]
    before = contents(whole)
    with pytest.raises(InputError, match="holds another run") as caught:
        ran(whole, **options)
    assert said in str(caught.value)
    assert contents(whole) == before


def _power(exponent: int, *, scale: float = 1.0) -> FunctionScore:
    return FunctionScore(lambda output: scale * output[:, :2] ** exponent, "power")


def test_another_function_of_the_same_name_is_another_run(tmp_path: Path) -> None:
    asked: dict[str, FunctionScore | DifferenceScore] = {
        "score": FunctionScore(lambda output: output[:, :2], "power"),
        "cube": _power(3),
        "square": _power(2),
    }
    asked |= {
        "in a difference": DifferenceScore(_power(2), _power(3)),
        "swapped": DifferenceScore(_power(3), _power(2)),
    }
    ran(tmp_path, target=asked["square"])
    ran(tmp_path, target=_power(2))
    for name, score in asked.items():
        if name != "square":
            with pytest.raises(InputError, match=r"work\.target"):
                ran(tmp_path, target=score)
    with pytest.raises(InputError, match=r"work\.target"):
        ran(tmp_path, target=_power(2, scale=2.0))


def test_functions_are_told_by_what_they_do() -> None:
    """In another process sets have another order, and objects lie elsewhere."""
    words = {"a", "b", "c", "d", "e", "f"}

    def made(name: str, held: Any) -> Any:
        return lambda x: (x if name in {"one", "two", "three"} else -x, held)

    table, grid = torch.arange(3.0), np.arange(4)
    held: list[Any] = [table, table + 1, grid, grid + 1, words, {"a"}, {}]
    told = [fingerprint.of_function(made("one", each)) for each in held]
    told += [fingerprint.of_function(made("six", table)), fingerprint.of_function(partial(made("one", 1), 2))]
    assert len({*told}) == len(told)
    assert told[0] == fingerprint.of_function(made("one", table.clone()))
    code = "from attribution.runs.fingerprint import of_function as f\nprint(f(lambda x: x in {'one', 'two', 'three'}))"
    seeds = {"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2"}
    once = [subprocess.check_output([sys.executable, "-c", code], env={**os.environ, **seed}) for seed in seeds]
    assert once[0] == once[1]


def test_another_version_is_another_run(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = fingerprint.versions()
    monkeypatch.setattr(fingerprint, "versions", lambda *names: {**found, "torch": "1.0"})
    with pytest.raises(InputError, match=r"versions\.torch was .* and is \"1\.0\""):
        ran(whole)


def test_execution_that_changes_no_result_is_the_same_run(whole: Path) -> None:
    ran(whole, execution=Execution(offload=True, progress=True), workers=1)


def test_inputs_that_changed_are_refused_and_repaired_ones_computed(tmp_path: Path) -> None:
    photos = painted(tmp_path / "photos", 6, bad=(4,))

    def again() -> runs.OpenRun:
        items = runs.of_folder(photos, to_tensor)
        return runs.run(small_cnn(), items, Saliency(), out=tmp_path / "run", batch_size=3, progress=False)

    first = again()
    assert [entry.number for entry in first.failures] == [4]
    assert first.failures[0].sha256 is not None
    before = contents(tmp_path / "run")
    assert contents(again().folder.root) == before
    clean = tmp_path / "clean"
    painted(clean, 6)
    shutil.copy(clean / "0004.png", photos / "0004.png")
    repaired = again()
    assert repaired.failures == []
    after = contents(tmp_path / "run")
    assert [name for name in after if after[name] != before[name]] == ["shards/00000/00000001.safetensors"]
    cleaned = runs.run(
        small_cnn(), runs.of_folder(clean, to_tensor), Saliency(), out=tmp_path / "c", batch_size=3, progress=False
    )
    assert contents(cleaned.folder.root).keys() == after.keys()
    for mine, other in zip(repaired, cleaned, strict=True):
        assert torch.equal(mine[2].map, other[2].map)
    shutil.copy(clean / "0003.png", photos / "0001.png")
    with pytest.raises(InputError, match=r"not what they were when they were computed: 0001\.png"):
        again()
    assert contents(tmp_path / "run") == after
    (photos / "0009.png").write_bytes(b"")
    with pytest.raises(InputError, match="items was"):
        again()


def test_damaged_shards_are_computed_again(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    path = RunFolder.read(out).path(1)
    data = bytearray(path.read_bytes())
    data[-3] ^= 64
    path.write_bytes(data)
    RunFolder.read(out).path(2).write_bytes(b"")
    with pytest.raises(OutputError, match="damaged"):
        list(runs.open(out))
    ran(out, progress=True)
    told = capsys.readouterr().err
    assert "2 shards are damaged" in told
    assert "1 of 3 shards are done" in told
    assert "run: 7/7 items" in told
    assert contents(out) == contents(whole)
