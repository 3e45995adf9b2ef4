"""A saved file is a whole answer, or is refused."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from attribution import Attribution, OutputError, load, plots
from tests.test_result import answer

Tensors = dict[str, Tensor]


def without(*starts: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: t for name, t in tensors.items() if not name.startswith(starts)}


def changed(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: change(tensors[name]).contiguous()}


CHANGES: list[tuple[str, Callable[[Tensors], Tensors], str, str]] = [
    ("grad_cam", without("maps/"), "'maps/body'", "it has no maps"),
    ("occlusion", without("maps/"), "'maps/input'", "it has no maps"),
    ("filter_visualization", without("maps/"), "'maps/body'", "it has no maps"),
    ("activations", without("maps/"), "'maps/stem'", "it has no maps"),
    ("activations", without("maps/stem"), "'maps/stem'", "no map of 'stem'"),
    ("grad_cam", without("target"), "'target'", "no target"),
    ("grad_cam", without("scores"), "'scores'", "no scores"),
    ("occlusion", without("extras/"), "'extras/largest_score'", ""),
    ("grad_cam", changed("maps/body", lambda m: m[0]), "'maps/body'", "expected (N, T, …)"),
    ("grad_cam", changed("maps/body", lambda m: m[:1]), "'maps/body'", "expected (N, T, …)"),
    ("grad_cam", changed("maps/body", lambda m: m[:, :1]), "'maps/body'", "expected (N, T, …)"),
    ("occlusion", changed("maps/input", lambda m: m[..., 0]), "'maps/input'", "expected (N, T, …)"),
    ("occlusion", changed("maps/input", lambda m: m[..., :0]), "'maps/input'", "expected (N, T, …)"),
    ("occlusion", changed("maps/input", lambda m: m.mT), "'maps/input'", ""),
    ("filter_visualization", changed("maps/body", lambda m: m[:1]), "'maps/body'", "expected (K, C, H, W)"),
    ("activations", changed("maps/body", lambda m: m[:1]), "'maps/body'", "expected (N, …)"),
    ("activations", changed("maps/body", lambda m: m.sum()), "'maps/body'", "expected (N, …)"),
    ("grad_cam", changed("maps/body", lambda m: m * float("nan")), "", "the map of 'body' holds NaN"),
    ("activations", changed("maps/stem", lambda m: m + float("inf")), "", "the map of 'stem' holds NaN"),
    ("grad_cam", changed("target", lambda t: t.flatten()), "'target'", "expected (N, T) of int64"),
    ("grad_cam", changed("scores", lambda s: s[:, :1]), "'scores'", "its scores are (2, 1)"),
]


@pytest.mark.parametrize(("name", "change", "says", "old"), CHANGES)
def test_a_file_that_is_not_whole_is_refused(
    tmp_path: Path, name: str, change: Callable[[Tensors], Tensors], says: str, old: str
) -> None:
    path = answer(name).save(tmp_path / "a.safetensors")
    header, tensors = Attribution.header(path), load_file(path)
    save_file(change(tensors), path, header)
    for read in (load, Attribution.load):
        with pytest.raises(OutputError, match=f"no whole answer: .*{re.escape(says)}"):
            read(path)
    for name in ("tensors", "score"):  # as files were saved before
        header.pop(name, None)
    header["schema"] = "1"
    save_file(change(tensors), path, header)
    if old:
        with pytest.raises(OutputError, match=re.escape(old)):
            load(path)
    else:
        load(path)


EARLIER = ("activations", "filter_visualization", "grad_cam", "occlusion")


@pytest.mark.parametrize("name", EARLIER)
def test_a_file_of_an_earlier_version_is_read(tmp_path: Path, name: str) -> None:
    result = answer(name)
    path = result.save(tmp_path / "a.safetensors")
    header = Attribution.header(path)
    for name in ("tensors", "score"):
        header.pop(name, None)
    save_file(load_file(path), path, header | {"schema": "1"})
    assert {key: m.tolist() for key, m in load(path).maps.items()} == {k: m.tolist() for k, m in result.maps.items()}


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": DEEP},
        {"provenance": DEEP},
        {"provenance": "3"},
        {"tensors": DEEP},
        {"tensors": "[]"},
        {"tensors": '{"maps/body": 3}'},
        {"parameters": '{"layers": ["body"], "relu": ' + DEEP + "}"},
        {"parameters": "9" * 5000},
    ],
    ids=lambda changes: str(changes)[:30],
)
def test_a_header_that_no_version_wrote(tmp_path: Path, changes: dict[str, str]) -> None:
    path = answer("grad_cam").save(tmp_path / "a.safetensors")
    save_file(load_file(path), path, {**Attribution.header(path), **changes})
    for read in (load, Attribution.load):
        with pytest.raises(OutputError, match="does not fit GradCAM as installed"):
            read(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    cases: list[tuple[Any, str]] = [
        (None, "not a path but a NoneType"),
        (3, "not a path but a int"),
        (tmp_path, "a directory"),
        (tmp_path / "pipe.safetensors", "a named pipe"),
        (tmp_path / "missing", "does not exist"),
        (tmp_path / ("x" * 300), "File name too long"),
        ("a\0b", "embedded null byte"),
        ("/dev/null", "a device"),
    ]
    for path, says in cases:
        for read in (load, Attribution.load, Attribution.header):
            with pytest.raises(OutputError, match=says) as caught:
                read(path)
            assert len(str(caught.value)) < 400


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    result = answer("grad_cam")
    places: list[Any] = [None, 3, "a\0b.safetensors", tmp_path / f"{'x' * 300}.safetensors"]
    for path in places:
        with pytest.raises(OutputError):
            result.save(path)
    with pytest.raises(OutputError, match="no maps"):
        Attribution({}, result.technique, "hooks").save(tmp_path / "a.safetensors")
    assert os.listdir(tmp_path) == []


def test_a_plugins_arrays_are_written_as_lists(tmp_path: Path) -> None:
    result = answer("grad_cam")
    notes: dict[str, Any] = {**result.provenance, "count": np.int64(3), "share": np.float32(0.5)}
    noted = replace(result, provenance=notes)
    assert load(noted.save(tmp_path / "a.safetensors")).provenance["count"] == 3
    notes["what"] = object()
    with pytest.raises(OutputError, match="cannot be written"):
        replace(result, provenance=notes).save(tmp_path / "b.safetensors")
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_the_header_tells_what_was_saved(tmp_path: Path) -> None:
    result = answer("grad_cam")
    path = result.save(tmp_path / "a.safetensors", raw=True)
    shapes = json.loads(Attribution.header(path)["tensors"])
    assert shapes == {name: list(tensor.shape) for name, tensor in load_file(path).items()}
    assert shapes["target"] == [2, 2]
    assert torch.equal(load(path).raw["body"], result.raw["body"])


@pytest.mark.parametrize("length", [13, 250, 255])
def test_a_name_as_long_as_the_disk_takes(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("é" * ((length - 12) // 2) + "a" * (length % 2) + ".safetensors")
    assert len(os.fsencode(path.name)) == length
    picture = path.with_suffix(".png")
    assert torch.equal(load(answer("grad_cam").save(path)).map, answer("grad_cam").map)
    plots.save(answer("grad_cam").figure(), picture)
    assert sorted(tmp_path.iterdir()) == sorted([path, picture])
