"""What may be called a target, and what is said to the rest."""

import re
from typing import Any

import numpy as np
import pytest
import torch

from attribution import Activations, ClassScore, GradCAM, InputError, Occlusion, TargetError, explain
from attribution.scores.targets import check, resolve
from tests.conftest import build, noise

LOGITS = torch.tensor([[0.0, 2.0, 1.0], [3.0, 1.0, 2.0]])

GOOD: list[tuple[Any, list[list[int]]]] = [
    (2, [[2], [2]]),
    (np.int64(2), [[2], [2]]),
    (np.array(2), [[2], [2]]),
    (torch.tensor(2), [[2], [2]]),
    ([1, 0], [[1], [0]]),
    ((1, 0), [[1], [0]]),
    (range(2), [[0], [1]]),
    (np.array([1, 0], dtype=np.uint8), [[1], [0]]),
    (torch.tensor([1, 0], dtype=torch.int32), [[1], [0]]),
    ([torch.tensor(1), torch.tensor(0)], [[1], [0]]),
    ([[1, 2], [0, 1]], [[1, 2], [0, 1]]),
    (np.array([[1, 2], [0, 1]]), [[1, 2], [0, 1]]),
    (torch.tensor([[1], [0]]), [[1], [0]]),
    ([(1, 1), (0, 0)], [[1, 1], [0, 0]]),
    ("all", [[0, 1, 2], [0, 1, 2]]),
    (None, [[1], [0]]),
]

BAD: list[tuple[Any, str]] = [
    (True, r"holds True \(bool\)"),
    ([True, False], r"holds True \(bool\)"),
    (np.bool_(True), "bool"),
    (np.array(True), "bool"),
    (torch.tensor(True), r"torch\.bool"),
    (1.0, r"holds 1\.0 \(float\)"),
    ([0, 1.5], r"holds 1\.5"),
    (np.array(3.7), r"holds 3\.7"),
    (np.array([1.0, 0.0]), r"holds 1\.0"),
    (torch.tensor(1.0), r"torch\.float32"),
    ([torch.tensor(1.7), torch.tensor(0)], r"holds 1\.7"),
    (1j, "complex"),
    (-1, "-1 is negative"),
    ([0, -2], "-2 is negative"),
    (torch.tensor([[-3, 0], [1, 1]]), "-3 is negative"),
    ("espresso", "command line takes label names"),
    (b"all", "command line"),
    ("ALL", "'all'"),
    (["all", "all"], "'all'"),
    ([1], "1 entries for 2 images"),
    ([1, 2, 0], r"3 entries for 2 images; flat means one per image.*\[\[3, 5\]\] × 2"),
    ([], "0 entries"),
    (torch.tensor([1, 2, 3]), "3 entries"),
    ([[1, 2]], r"shape \(1, 2\); expected \(2, T\)"),
    ([[], []], r"shape \(2, 0\)"),
    ([[1], [2, 0]], "not rectangular"),
    ([[[1]], [[0]]], r"shape \(2, 1, 1\)"),
    (2**70, "too large"),
    ({1, 2}, r"\(set\)"),
    ({0: 1}, r"\(dict\)"),
    (object(), r"\(object\)"),
]


@pytest.mark.parametrize(("target", "expected"), GOOD, ids=[repr(target) for target, _ in GOOD])
def test_good(target: Any, expected: list[list[int]]) -> None:
    found = resolve(check(target, 2), LOGITS)
    assert found.dtype == torch.int64
    assert found.tolist() == expected


@pytest.mark.parametrize(("target", "says"), BAD, ids=[re.sub(r" at 0x\w+", "", repr(bad)[:40]) for bad, _ in BAD])
def test_bad(target: Any, says: str) -> None:
    with pytest.raises(TargetError, match=f"(?s){says}"):
        check(target, 2)


def test_one_image_is_no_exception_to_the_length() -> None:
    with pytest.raises(TargetError, match="2 entries for 1 image; "):
        check([3, 5], 1)
    checked = check([[3, 5]], 1)
    assert isinstance(checked, torch.Tensor)
    assert checked.tolist() == [[3, 5]]


@pytest.mark.parametrize("backend", ["hooks", "captum"])
@pytest.mark.parametrize("technique", [GradCAM(layers=("body",)), Occlusion(window=9, stride=9)], ids=lambda t: t.name)
def test_through_the_front_door(backend: str, technique: GradCAM | Occlusion) -> None:
    model, inputs = build("cnn"), noise(2, 3, 17, 23)
    logits = model(inputs).detach()
    for target, expected in (
        (3, [[3], [3]]),
        ([4, 0], [[4], [0]]),
        ([[4, 0], [1, 1]], [[4, 0], [1, 1]]),
        ("all", [list(range(5))] * 2),
        (None, logits.argmax(dim=1, keepdim=True).tolist()),
    ):
        result = explain(model, inputs, technique, backend=backend, target=target)  # type: ignore[arg-type]
        assert result.target is not None
        assert result.scores is not None
        assert result.target.tolist() == expected
        assert torch.allclose(result.scores, technique.default_score.score_of(logits).gather(1, result.target))
        assert result.map.shape == (2, len(expected[0]), 17, 23)
    with pytest.raises(TargetError, match="target 5 is out of range; the model has 5 classes, 0 to 4"):
        explain(model, inputs, technique, backend=backend, target=[0, 5])


@pytest.mark.parametrize("backend", ["hooks", "captum"])
def test_several_targets_are_the_single_ones(backend: str) -> None:
    model, inputs = build("residual", torch.float64), noise(2, 3, 17, 23, dtype=torch.float64)
    technique = GradCAM(layers=("stem", "body"), relu=False)
    every = explain(model, inputs, technique, backend=backend, target="all")
    for t in range(5):
        one = explain(model, inputs, technique, backend=backend, target=t)
        for layer in technique.layers:
            difference = (one.maps[layer][:, 0] - every.maps[layer][:, t]).abs().max()
            assert difference <= 1e-12 * every.maps[layer].abs().max()


def test_one_class_of_one_image_is_equal_to_itself() -> None:
    """A tensor of one entry may have any stride, as an expanded one has."""
    found = explain(build("cnn"), noise(1, 3, 17, 23), GradCAM(layers=("body",)), target=3).score
    assert found == ClassScore([[3]], of="logit")
    assert found is not None
    assert hash(found) == hash(ClassScore([[3]], of="logit"))
    assert found != ClassScore([[2]], of="logit")


def test_a_target_where_none_is_explained_is_refused() -> None:
    with pytest.raises(TargetError, match="activations explains no score; leave target out"):
        explain(build("cnn"), noise(1, 3, 17, 23), Activations(layers=("body",)), target=0)


STRANGE = {
    "meta": lambda: torch.tensor([3, 3], device="meta"),
    "meta scalar": lambda: torch.tensor(3, device="meta"),
    "quantised": lambda: torch.quantize_per_tensor(torch.tensor([1.0, 2.0]), 1.0, 0, torch.quint8),
    "quantised scalar": lambda: torch.quantize_per_tensor(torch.tensor(1.0), 1.0, 0, torch.quint8),
    "nested": lambda: torch.nested.nested_tensor([torch.tensor([1, 2]), torch.tensor([1])]),
}


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning", "ignore:.*quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("name", STRANGE)
def test_tensors_without_plain_values(name: str) -> None:
    value: Any = STRANGE[name]()
    for target in (value, [value, value]):
        with pytest.raises(TargetError, match="give an int"):
            explain(build("cnn"), noise(2, 3, 17, 23), GradCAM(), target=target)
    for given in (value, (value, 3)):
        with pytest.raises(InputError):
            Occlusion(window=given)


@pytest.mark.parametrize("layers", [None, {"body"}, (name for name in ("body",)), 3])
def test_only_text_is_repeated_as_a_tuple(layers: Any) -> None:
    with pytest.raises(InputError, match=r"give a tuple of names$"):
        GradCAM(layers=layers)
    with pytest.raises(InputError, match=r"give a tuple of names: layers=\('body',\)$"):
        GradCAM(layers="body")  # type: ignore[arg-type]
