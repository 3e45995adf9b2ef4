"""What cannot be asked is refused by a typed error, before any work where it shows, and the model is as found."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import attribution
from attribution import (
    AttributionError,
    ClassScore,
    DifferenceScore,
    FinerScore,
    GradCAM,
    LayerError,
    LayerScore,
    ModelError,
    NonFiniteError,
    Occlusion,
    RegionScore,
    SimilarityScore,
    TargetError,
    ValueScore,
    explain,
)
from attribution.testing import guard
from tests.conftest import BACKENDS
from tests.scores.net import Finish, Net, images
from tests.scores.outputs import MASKS, REFERENCES, pooled

BOX = [0.0, 0.0, 4.0, 4.0]
MASK = MASKS[0]

made: Any = attribution
"""With fields of any type."""

WRONG_FIELDS: dict[str, tuple[Callable[[], Any], str]] = {
    "class, text": (lambda: made.ClassScore("3"), "give an int"),
    "class, texts": (lambda: made.ClassScore(["3"]), "holds '3'"),
    "class, float": (lambda: made.ClassScore(1.0), "float"),
    "class, bool": (lambda: made.ClassScore(True), "bool"),
    "class, ragged": (lambda: made.ClassScore([[1], [1, 2]]), "not rectangular"),
    "class, of": (lambda: made.ClassScore(1, of="softmax"), "give 'logit' or"),
    "class, of unhashable": (lambda: made.ClassScore(1, of=["logit"]), "give 'logit' or"),
    "class, of array": (lambda: made.ClassScore(1, of=np.array(["logit", "sigmoid"])), "give 'logit' or"),
    "class, output": (lambda: made.ClassScore(1, output=1.5), "ClassScore.output is 1.5"),
    "class, output unhashable": (lambda: made.ClassScore(1, output=["logits"]), "ClassScore.output"),
    "class, output empty": (lambda: made.ClassScore(1, output=""), "ClassScore.output"),
    "finer, class": (lambda: made.FinerScore("3"), "give an int"),
    "finer, another reading": (lambda: made.FinerScore(made.ClassScore(1, of="probability")), "of='logit'"),
    "finer, no references": (lambda: made.FinerScore(1, references=0), "FinerScore.references is 0"),
    "finer, empty references": (lambda: made.FinerScore(1, references=()), r"FinerScore.references is \(\)"),
    "finer, one reference twice": (lambda: made.FinerScore(1, references=(2, 2)), "each once"),
    "finer, references of text": (lambda: made.FinerScore(1, references="all"), "FinerScore.references"),
    "finer, strength": (lambda: made.FinerScore(1, strength=math.nan), "FinerScore.strength is nan"),
    "finer, strength negative": (
        lambda: made.FinerScore(1, strength=-0.1),
        "FinerScore.strength is -0.1",
    ),
    "finer, weights": (lambda: made.FinerScore(1, weights="none"), "give 'equal' or 'softmax'"),
    "value, text": (lambda: made.ValueScore("3"), "ValueScore.index is '3'"),
    "value, texts": (lambda: made.ValueScore(("1", "2")), "ValueScore.index"),
    "value, empty": (lambda: made.ValueScore(()), "ValueScore.index"),
    "value, float": (lambda: made.ValueScore(1.0), "ValueScore.index"),
    "value, ragged": (lambda: made.ValueScore([(1, 2), (1,)]), "such a place for each"),
    "value, mixed": (lambda: made.ValueScore([1, (1,)]), "such a place for each"),
    "value, rows without steps": (lambda: made.ValueScore([(), ()]), "such a place for each"),
    "value, rows of floats": (lambda: made.ValueScore([(1.0,), (0.0,)]), "such a place for each"),
    "value, rows of huge": (lambda: made.ValueScore([(2**70,), (0,)]), "such a place for each"),
    "region, channel text": (lambda: made.RegionScore("3", MASK), "RegionScore.channel is '3'"),
    "region, channel negative": (lambda: made.RegionScore(-1, MASK), "RegionScore.channel is -1"),
    "region, channel bool": (lambda: made.RegionScore(True, MASK), "RegionScore.channel is True"),
    "region, reduce": (lambda: made.RegionScore(1, MASK, reduce="max"), "give 'mean' or 'sum'"),
    "region, reduce unhashable": (lambda: made.RegionScore(1, MASK, reduce=[]), "give 'mean' or 'sum'"),
    "region, mask text": (lambda: made.RegionScore(1, "mask"), "RegionScore.mask is a str"),
    "region, mask number": (lambda: made.RegionScore(1, torch.tensor(1.0)), "single number"),
    "region, mask NaN": (lambda: made.RegionScore(1, MASK * math.nan), "finite"),
    "region, mask complex": (lambda: made.RegionScore(1, MASK * 1j), "finite"),
    "region, mask negative": (lambda: made.RegionScore(1, -MASK.double()), "negative weights"),
    "region, mask nothing": (lambda: made.RegionScore(1, torch.zeros(8, 9)), "the region is empty"),
    "region, mask no axis": (lambda: made.RegionScore(1, torch.zeros(0, 9)), "finite numbers"),
    "region, mask meta": (lambda: made.RegionScore(1, torch.ones(8, 9, device="meta")), "RegionScore.mask"),
    "region, mask sparse": (lambda: made.RegionScore(1, torch.ones(8, 9).to_sparse()), "RegionScore.mask"),
    "similarity, text": (lambda: made.SimilarityScore("face"), "SimilarityScore.reference is a str"),
    "similarity, axes": (lambda: made.SimilarityScore(torch.ones(1, 1, 4)), r"shape \(1, 1, 4\)"),
    "similarity, number": (lambda: made.SimilarityScore(1.0), "shape"),
    "similarity, infinite": (lambda: made.SimilarityScore([1.0, math.inf]), "finite"),
    "similarity, empty": (lambda: made.SimilarityScore(torch.ones(0)), "finite"),
    "similarity, zero": (lambda: made.SimilarityScore(torch.zeros(4)), "no direction"),
    "similarity, by": (lambda: made.SimilarityScore(REFERENCES, by="euclid"), "give 'cosine' or 'dot'"),
    "similarity, each": (lambda: made.SimilarityScore(REFERENCES, each="yes"), "SimilarityScore.each is 'yes'"),
    "similarity, each of one": (lambda: made.SimilarityScore(REFERENCES[0], each=True), "SimilarityScore.each"),
    "difference, text": (lambda: made.DifferenceScore("3", 1), "DifferenceScore.a is '3'"),
    "difference, float": (lambda: made.DifferenceScore(3, 1.0), "DifferenceScore.b is 1.0"),
    "difference, layers": (
        lambda: made.DifferenceScore(made.LayerScore("a", 1), made.LayerScore("b", 1)),
        "one forward ends",
    ),
    "difference, layer": (lambda: made.DifferenceScore(made.LayerScore("a", 1), 3), "layer 'a' and the output"),
    "layer, name": (lambda: made.LayerScore(3, 1), "LayerScore.layer is 3"),
    "layer, no name": (lambda: made.LayerScore("", 1), "LayerScore.layer is ''"),
    "layer, no channels": (lambda: made.LayerScore("body", ()), "several different ones"),
    "layer, channel twice": (lambda: made.LayerScore("body", (1, 1)), "several different ones"),
    "layer, open slice": (lambda: made.LayerScore("body", slice(1, None)), "give a slice with an end"),
    "layer, channel": (lambda: made.LayerScore("body", "1"), "LayerScore.channel is '1'"),
    "layer, position": (lambda: made.LayerScore("body", 1, position=("1", "2")), "LayerScore.position"),
    "layer, position negative": (lambda: made.LayerScore("body", 1, position=(-1, 2)), "LayerScore.position"),
    "layer, reduce": (lambda: made.LayerScore("body", 1, reduce="max"), "give 'mean' or 'sum'"),
    "function, layer": (lambda: made.FunctionScore(lambda a: a.mean((1, 2, 3)), layer=""), "FunctionScore.layer is ''"),
    "box, target": (lambda: made.BoxScore(BOX, "1"), "BoxScore.target is '1'"),
    "box, three": (lambda: made.BoxScore(BOX[:3], 1), "x0, y0, x1, y1"),
    "box, turned": (lambda: made.BoxScore([4.0, 0.0, 0.0, 4.0], 1), "x1 > x0"),
    "box, infinite": (lambda: made.BoxScore([0.0, 0.0, math.inf, 4.0], 1), "finite"),
    "box, text": (lambda: made.BoxScore("box", 1), "BoxScore.box is a str"),
    "function, number": (lambda: made.FunctionScore(3), "FunctionScore.function is 3"),
    "function, class": (lambda: made.FunctionScore(Net), "FunctionScore.function"),
    "function, name": (lambda: made.FunctionScore(pooled, 3), "FunctionScore.name is 3"),
    "function, three": (lambda: made.FunctionScore(lambda a, b, c: a), "takes a, b, c"),
    "function, none": (lambda: made.FunctionScore(lambda: 0), "takes nothing"),
    "function, keyword": (lambda: made.FunctionScore(lambda a, *, b: a), "takes a, b"),
}


@pytest.mark.parametrize("name", WRONG_FIELDS)
def test_a_wrong_field_is_refused(name: str) -> None:
    make, words = WRONG_FIELDS[name]
    with pytest.raises(TargetError, match=words):
        make()


def logits(maps: Tensor) -> Tensor:
    return pooled(maps)


def first_only(maps: Tensor) -> Tensor:
    return pooled(maps)[:1]


def never(maps: Tensor) -> Tensor:
    return maps - 1e3


def fails(output: Tensor) -> Tensor:
    raise KeyError("no such thing")


WRONG_QUESTIONS: dict[str, tuple[Finish, Any, type[AttributionError], str]] = {
    "mask size": (lambda m: m, RegionScore(1, MASK[:5]), TargetError, r"size \(5, 9\), the model's map \(8, 9\)"),
    "finer, class out of range": (
        logits,
        FinerScore(1, references=(2, 9)),
        TargetError,
        "names class 9; the model has 4",
    ),
    "finer, one class": (
        lambda m: pooled(m)[:, :1],
        FinerScore(0),
        TargetError,
        "needs other classes, and the model has one",
    ),
    "mask rows": (lambda m: m, RegionScore(1, MASKS[:2]), TargetError, "2 rows for 3 examples"),
    "mask rows, many": (lambda m: m, RegionScore(1, MASKS.repeat(2, 1, 1)), TargetError, "6 rows for 3 examples"),
    "empty region of one": (
        lambda m: m,
        RegionScore(1, MASKS * torch.tensor([1, 0, 1])[:, None, None]),
        TargetError,
        "no place of example 1",
    ),
    "empty predicted": (lambda m: never(m)[:, :1], RegionScore(0), TargetError, "the model assigns no place of ex"),
    "channel": (lambda m: m, RegionScore(4), TargetError, "channel 4 is out of range; the map has 4"),
    "no map": (logits, RegionScore(1), ModelError, "a region is part of a map"),
    "class": (logits, 4, TargetError, "out of range"),
    "class of a difference": (logits, DifferenceScore(1, 4), TargetError, "out of range"),
    "classes, examples": (logits, [1, 2], TargetError, "2 entries for 3 images"),
    "map as logits": (lambda m: m, 1, ModelError, "RegionScore"),
    "index": (logits, ValueScore(4), TargetError, "out of range: axis 1 has 4"),
    "index, axes": (logits, ValueScore((1, 2)), ModelError, "2 entries for 1 axes"),
    "index of each": (logits, ValueScore([(1,), (4,), (0,)]), TargetError, "of each example is out of range: axis 1"),
    "index of each, axes": (logits, ValueScore([(1, 2)] * 3), ModelError, "2 entries for 1 axes"),
    "index of each, examples": (logits, ValueScore([(1,), (2,)]), TargetError, "2 rows for 3 examples"),
    "several values": (logits, ValueScore(), ModelError, "several numbers"),
    "output, key": (lambda m: {"a": m}, ClassScore(1, output="b"), ModelError, r"output is 'b'.*e\.g\. output='a'"),
    "output, path": (lambda m: {"a": (m,)}, ClassScore(1, output="a.1"), ModelError, "at 'a'"),
    "output, method": (lambda m: {"a": m}, ClassScore(1, output="items"), ModelError, "output is 'items'"),
    "output, tensor": (logits, ClassScore(1, output=0), ModelError, "rows are examples"),
    "output, path into a tensor": (lambda m: (pooled(m),), ClassScore(1, output="0.1"), ModelError, "rows are exam"),
    "output, none named": (lambda m: (pooled(m), m), 1, ModelError, "name the tensor in it"),
    "output, function": (logits, ClassScore(1, output=fails), ModelError, "output=fails fails"),
    "output, ints": (lambda m: pooled(m).argmax(1), ValueScore(), ModelError, "a dense tensor of floats"),
    "rows, logits": (first_only, 1, ModelError, "for 3 examples"),
    "rows, value": (first_only, ValueScore(0), ModelError, "for 3 examples"),
    "rows, map": (lambda m: m[:2], RegionScore(1, MASK), ModelError, "for 3 examples"),
    "rows, embedding": (first_only, SimilarityScore(REFERENCES[0]), ModelError, "for 3 examples"),
    "embedding": (lambda m: m, SimilarityScore(REFERENCES[0]), ModelError, r"an embedding is \(N, D\)"),
    "reference, length": (logits, SimilarityScore(torch.ones(5)), TargetError, "has 5 numbers, the embedding 4"),
    "reference, examples": (logits, SimilarityScore(REFERENCES[:2], each=True), TargetError, "2 rows for 3 ex"),
    "difference, targets": (
        logits,
        DifferenceScore(ClassScore([[0, 1]] * 3), ClassScore([[0, 1, 2]] * 3)),
        TargetError,
        "2 targets of a and 3 of b",
    ),
    "layer": (logits, LayerScore("bdy", 1), LayerError, "nearest: 'body'"),
    "function, no such layer": (
        logits,
        made.FunctionScore(lambda a: a.mean((1, 2, 3)), layer="bdy"),
        LayerError,
        "nearest: 'body'",
    ),
    "layer, channel": (logits, LayerScore("body", 5), TargetError, "layer 'body' has 5"),
    "layer, channels": (logits, LayerScore("body", (1, 5)), TargetError, "layer 'body' has 5"),
    "layer, place": (logits, LayerScore("body", 1, position=(8, 0)), TargetError, "does not lie in the places"),
    "layer, axes": (logits, LayerScore("body", 1, position=(1,)), TargetError, "does not lie in the places"),
    "box, rows": (logits, made.BoxScore([BOX] * 2, 1), TargetError, "2 rows for 3 examples"),
    "box, output": (logits, made.BoxScore(BOX, 1), ModelError, "a box needs N dicts"),
    "box, keys": (lambda m: [{"boxes": r} for r in m], made.BoxScore(BOX, 1), ModelError, "a box needs N dicts"),
    "box, dicts": (lambda m: [{"boxes": m}], made.BoxScore(BOX, 1), ModelError, "a box needs N dicts"),
    "function fails": (logits, fails, ModelError, "fails fails on .*KeyError: 'no such thing'"),
    "function, ints": (logits, lambda out: out.argmax(1), ModelError, "expected floats"),
    "function, axes": (logits, lambda out: out[:, :, None], ModelError, "expected floats"),
    "function, rows": (logits, lambda out: out[:2], ModelError, "for 3 examples; expected one row per example"),
    "function, no target": (logits, lambda out: out[:, :0], ModelError, "expected one row per example"),
    "function, list": (logits, lambda out: [out], ModelError, "expected floats"),
    "function, data": (lambda m: m, lambda out: (out[:, 1] * MASKS).sum((1, 2)), TargetError, "examples"),
    "function, mixes": (logits, lambda out: out[:, 0] * out[0, 1], TargetError, "examples"),
    "text": (logits, "cat", TargetError, "label names"),
    "not a number": (lambda m: pooled(m) * math.nan, 1, NonFiniteError, "NaN"),
    "value, not a number": (lambda m: pooled(m)[:, 0].log() * math.nan, ValueScore(), NonFiniteError, "NaN"),
    "region, not a number": (lambda m: m * math.nan, RegionScore(1, MASK), NonFiniteError, "NaN"),
}


@BACKENDS
@pytest.mark.parametrize("technique", [GradCAM(layers=("body",)), Occlusion(window=3, stride=2)], ids=lambda t: t.name)
@pytest.mark.parametrize("name", WRONG_QUESTIONS)
def test_a_wrong_question_is_refused_and_nothing_is_half_done(name: str, technique: Any, backend: str) -> None:
    finish, asked, error, words = WRONG_QUESTIONS[name]
    net, inputs = Net(finish), images(3)
    with guard(net, inputs), pytest.raises(error, match=words):
        explain(net, inputs, technique, backend=backend, target=asked)


def test_what_shows_before_any_forward_costs_none() -> None:
    ran = []

    def counted(maps: Tensor) -> Tensor:
        ran.append(1)
        return pooled(maps)

    questions: list[Any] = [
        LayerScore("bdy", 1),
        SimilarityScore(REFERENCES[:2], each=True),
        made.BoxScore([BOX] * 2, 1),
        DifferenceScore(ClassScore([1, 2]), 0),
        [1, 2],
        "cat",
    ]
    for asked in questions:
        with pytest.raises(AttributionError):
            explain(Net(counted), images(3), GradCAM(layers=("body",)), target=asked)
    assert not ran
