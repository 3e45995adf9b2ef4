"""An answer can be written, read again, and says what it is."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from attribution import (
    Attribution,
    Attributor,
    ClassScore,
    FilterVisualization,
    GradCAM,
    InputError,
    Occlusion,
    OutputError,
    Technique,
    explain,
    load,
)
from tests.cases import TECHNIQUES, given
from tests.conftest import build, logit, noise

QUESTIONS: dict[str, Technique] = {
    **TECHNIQUES,
    "grad_cam": GradCAM(layers=("body",), relu=False, upsample=False),
    "grad_cam-default": GradCAM(),
    "occlusion": Occlusion(window=(9, 7), stride=5, baseline=(0.5, 0.0, -1.0), border="drop"),
    "filter_visualization": FilterVisualization(layer="body", channels=(0, 3), steps=2, size=(17, 23), seed=4),
}


def answer(name: str, dtype: torch.dtype = torch.float32, backend: str = "hooks") -> Attribution:
    technique = QUESTIONS[name]
    inputs, target = given(technique, noise(2, 3, 17, 23, dtype=dtype), logit([[3, 1], [0, 2]]))
    return explain(build("cnn", dtype), inputs, technique, target=target, backend=backend)


def equal(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", QUESTIONS)
def test_round_trip(tmp_path: Path, name: str, dtype: torch.dtype, raw: bool) -> None:
    result = answer(name, dtype)
    path = result.save(tmp_path / "maps.safetensors", raw=raw)
    for again in (load(path), Attribution.load(str(path))):
        assert equal(again.maps, result.maps)
        assert equal(again.raw, result.raw if raw else {})
        assert equal(again.extras, result.extras)
        assert again.technique == result.technique
        assert again.backend == "hooks"
        assert again.provenance == result.provenance
        assert again.computes_in == result.computes_in == dtype
        for a, b in ((again.target, result.target), (again.scores, result.scores)):
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b)  # type: ignore[arg-type]
    assert [entry.name for entry in tmp_path.iterdir()] == ["maps.safetensors"]


OLD: dict[str, tuple[str, str, str]] = {
    "grad_cam": ("grad_cam", "{}", "logit"),
    "occlusion of logits": ("occlusion", '{"score": "logit"}', "logit"),
    "occlusion of probabilities": ("occlusion", '{"score": "probability"}', "probability"),
    "occlusion by default": ("occlusion", "{}", "probability"),
}


@pytest.mark.parametrize("case", OLD)
def test_a_file_of_schema_1_is_read(tmp_path: Path, case: str) -> None:
    """It had no score: what was explained was a class, and how was a parameter of the technique."""
    name, added, of = OLD[case]
    result = answer(name)
    path = result.save(tmp_path / "a.safetensors")
    header = {key: value for key, value in Attribution.header(path).items() if key not in ("score", "tensors")}
    header |= {"schema": "1", "parameters": json.dumps(json.loads(header["parameters"]) | json.loads(added))}
    save_file({key: t for key, t in load_file(path).items() if not key.startswith("score/")}, path, header)
    for found in (load(path), Attribution.load(path)):
        assert found.technique == result.technique
        assert found.score == ClassScore([[3, 1], [0, 2]], of=of)  # type: ignore[arg-type]
        assert found.target is not None
        assert found.target.tolist() == [[3, 1], [0, 2]]
        assert found.names == (("class 3", "class 1"), ("class 0", "class 2"))
        assert equal(found.maps, result.maps)


def test_the_score_and_its_names_are_part_of_the_answer(tmp_path: Path) -> None:
    result = answer("occlusion")
    assert result.score == ClassScore([[3, 1], [0, 2]], of="logit")
    assert result.names == (("class 3", "class 1"), ("class 0", "class 2"))
    predicted = explain(build("cnn"), noise(2, 3, 17, 23), GradCAM(layers=("body",)))
    classes = build("cnn")(noise(2, 3, 17, 23)).argmax(dim=1, keepdim=True)
    assert predicted.score == ClassScore(classes, of="logit"), "settled: the prediction is part of it"
    for found in (result, predicted):
        assert load(found.save(tmp_path / "x.safetensors")).score == found.score
    assert (answer("activations").score, answer("activations").names) == (None, ())


def test_maps_are_at_least_float32_and_raw_is_what_was_computed() -> None:
    result = answer("grad_cam", torch.bfloat16)
    assert result.map.dtype == torch.float32
    assert result.raw["body"].dtype == torch.bfloat16


def test_a_coarser_library_is_told_after_loading(tmp_path: Path) -> None:
    result = answer("occlusion", torch.float64, "captum")
    assert load(result.save(tmp_path / "x.safetensors")).computes_in == torch.float32


def test_the_provenance_says_who_and_what() -> None:
    result = answer("occlusion")
    assert result.provenance["attributor"] == "attribution_hooks.perturbation.occlusion:HooksOcclusion"
    assert result.provenance["inputs"] == "(2, 3, 17, 23)"
    assert result.provenance["dtype"] == "float32"
    assert result.provenance["torch"] == torch.__version__
    assert result.provenance["windows"] == 8
    assert "occlusion.hooks" in repr(result)
    assert "(2, 2, 17, 23)" in repr(result)


@pytest.mark.parametrize("when", ["write", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk", "ctrl-c"])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, when: str
) -> None:
    path = answer("grad_cam").save(tmp_path / "x.safetensors")
    before = path.read_bytes()

    def fail(*args: Any) -> None:
        if when == "write":
            os.write(os.open(args[0], os.O_CREAT | os.O_WRONLY), args[1][:100])
        raise error

    if when == "write":
        monkeypatch.setattr(Path, "write_bytes", fail)
    else:
        monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        answer("occlusion").save(path)
    assert not isinstance(error, OSError) or "No space left" in str(caught.value)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.safetensors"]


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    result = answer("grad_cam")
    with pytest.raises(OutputError, match=r"x\.npz does not end in \.safetensors"):
        result.save(tmp_path / "x.npz")
    with pytest.raises(OutputError, match="does not exist; make it first"):
        result.save(tmp_path / "missing" / "x.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(OutputError, match="is a folder; give the name of a file"):
        result.save(tmp_path / "folder.safetensors")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.safetensors"]


def forged(path: Path, **changes: str | None) -> Path:
    """A saved file whose header was changed."""
    answer("grad_cam").save(path)
    header = {**Attribution.header(path), **changes}
    save_file(load_file(path), path, {key: value for key, value in header.items() if value is not None})
    return path


BAD_HEADERS: dict[str, dict[str, str | None]] = {
    "no schema": {"schema": None},
    "later schema": {"schema": "99"},
    "unknown technique": {"technique": "lime"},
    "no technique": {"technique": None},
    "no parameters": {"parameters": None},
    "parameters of another version": {"parameters": '{"layers": ["body"], "colour": 3}'},
    "impossible parameters": {"parameters": '{"layers": "body"}'},
    "parameters are no object": {"parameters": "[1]"},
    "no json": {"parameters": "{"},
    "no provenance": {"provenance": None},
    "no computes_in": {"computes_in": None},
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, case: str) -> None:
    path = forged(tmp_path / "x.safetensors", **BAD_HEADERS[case])
    for read in (load, Attribution.load):
        with pytest.raises(OutputError):
            read(path)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    junk = tmp_path / "x.safetensors"
    with pytest.raises(OutputError, match="cannot read"):
        load(junk)
    for content in (b"", b"junk", b"\x00" * 100, answer("grad_cam").save(tmp_path / "y.safetensors").read_bytes()[:-9]):
        junk.write_bytes(content)
        with pytest.raises(OutputError):
            load(junk)
    with pytest.raises(OutputError):
        load(tmp_path)
    save_file({"a": torch.zeros(1)}, junk)
    with pytest.raises(OutputError, match=r"was not written by Attribution\.save"):
        load(junk)


def test_a_strangers_technique_is_read_through_the_registry(tmp_path: Path, registered: Any) -> None:
    class Doubled(GradCAM):
        name = "doubled"

    class Mine(Attributor[Doubled]):
        technique_type, backend = Doubled, "mine"

        def compute(self, run: Any) -> Any:
            run.scores(run.forward(run.inputs))
            return {"body": torch.ones(len(run.inputs), 1, 2, 2)}

    registered(Mine)
    result = explain(build("cnn"), noise(1, 3, 17, 23), Doubled(layers=("body",)), backend="mine")
    path = result.save(tmp_path / "x.safetensors")
    assert load(path).technique == Doubled(layers=("body",))
    with pytest.raises(OutputError, match=r"'doubled' is not built in; load it with attribution\.load"):
        Attribution.load(path)


def test_the_only_map() -> None:
    assert torch.equal(answer("occlusion").map, answer("occlusion").maps["input"])
    with pytest.raises(InputError, match="there are 2 maps: 'stem', 'body'"):
        _ = answer("activations").map


def test_numpy_has_the_same_values() -> None:
    result = answer("activations")
    found = result.numpy()
    assert [*found] == ["stem", "body"]
    for name, values in found.items():
        assert isinstance(values, np.ndarray)
        assert np.array_equal(values, result.maps[name].numpy())


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_kind_shows_itself(name: str) -> None:
    html = answer(name)._repr_html_()
    assert html.startswith("<img alt=")
    assert len(html) > 2000
