"""Every kind of score with what it means, written by hand for one image at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from attribution import (
    BoxScore,
    ClassScore,
    DifferenceScore,
    FinerScore,
    FunctionScore,
    LayerScore,
    RegionScore,
    SimilarityScore,
    ValueScore,
)
from tests.scores.by_hand import best, cosine, dot, finer, in_mask, near, number, overlap, predicted, sigmoid, softmax
from tests.scores.net import Finish, Truth
from tests.scores.outputs import (
    BOXES,
    MASKS,
    REFERENCES,
    TWENTY,
    WEIGHTS,
    Pair,
    Plain,
    Returned,
    anchored,
    detected,
    energy,
    found_again,
    per_image,
    pooled,
    product,
    second_head,
)


@dataclass(frozen=True)
class Case:
    """A form of output, a score of it, and what that is.

    Attributes:
        finish: From maps (N, 4, 8, 9) to the output.
        asked: For so many examples.
        truth: See `Truth`.
        layer: The layer that is scored, where it is one of a layer.
        only: Techniques that can explain it; ``""``: all.
    """

    finish: Finish
    asked: Callable[[int], Any]
    truth: Truth
    layer: str | None = None
    only: str = ""


ENTRIES = [(1, 3), (0, -2), (3, 0)]

CASES: dict[str, Case] = {
    "region, common": Case(
        lambda m: m, lambda n: RegionScore(2, MASKS[0]), lambda o, n, c: [in_mask(o[0, 2], MASKS[0])]
    ),
    "region, per image": Case(
        lambda m: m, lambda n: RegionScore(2, MASKS[:n]), lambda o, n, c: [in_mask(o[0, 2], MASKS[n])]
    ),
    "region, predicted": Case(
        lambda m: {"out": m},
        lambda n: RegionScore(2, output="out"),
        lambda o, n, c: [in_mask(o["out"][0, 2], predicted(c["out"], 2))],
    ),
    "region, predicted of one channel": Case(
        lambda m: m[:, :1], lambda n: RegionScore(0), lambda o, n, c: [in_mask(o[0, 0], c[0, 0] > 0)]
    ),
    "region, weighed sum": Case(
        lambda m: m,
        lambda n: RegionScore(1, WEIGHTS, reduce="sum"),
        lambda o, n, c: [in_mask(o[0, 1], WEIGHTS, mean=False)],
    ),
    "value (N,)": Case(lambda m: m[:, 0].sum(dim=(1, 2)), lambda n: ValueScore(), lambda o, n, c: [o[0]]),
    "value (N, 1)": Case(lambda m: m[:, :1].mean(dim=(2, 3)), lambda n: ValueScore(), lambda o, n, c: [o[0, 0]]),
    "entry of (N, K, L)": Case(
        lambda m: m.mean(dim=3), lambda n: ValueScore(index=(1, 3)), lambda o, n, c: [o[0, 1, 3]]
    ),
    "entries of (N, K, L), one of each": Case(
        lambda m: m.mean(dim=3),
        lambda n: ValueScore(index=ENTRIES[:n]),
        lambda o, n, c: [o[0, ENTRIES[n][0], ENTRIES[n][1]]],
    ),
    "one unit, both classes": Case(
        lambda m: pooled(m)[:, :1],
        lambda n: ClassScore([[1, 0]] * n, of="sigmoid"),
        lambda o, n, c: [sigmoid(o[0, 0]), 1 - sigmoid(o[0, 0])],
    ),
    "20 sigmoids": Case(
        lambda m: pooled(m) @ TWENTY.to(m.device),
        lambda n: ClassScore("all", of="sigmoid"),
        lambda o, n, c: [sigmoid(value) for value in o[0]],
    ),
    "log probability of the predicted": Case(
        lambda m: pooled(m),
        lambda n: ClassScore(of="log_probability"),
        lambda o, n, c: [softmax(o[0], best(c[0])).log()],
    ),
    "probability, several": Case(
        lambda m: pooled(m),
        lambda n: ClassScore([[0, 3], [1, 2], [2, 0]][:n], of="probability"),
        lambda o, n, c: [softmax(o[0], k) for k in [[0, 3], [1, 2], [2, 0]][n]],
    ),
    "heads by path": Case(
        lambda m: {"heads": [pooled(m), pooled(m.tanh())]},
        lambda n: ClassScore(2, of="logit", output="heads.1"),
        lambda o, n, c: [o["heads"][1][0, 2]],
    ),
    "heads by function": Case(
        lambda m: torch.stack([pooled(m), pooled(m.tanh())], dim=1),
        lambda n: ClassScore(2, of="logit", output=second_head),
        lambda o, n, c: [o[0, 1, 2]],
    ),
    "as of Hugging Face": Case(
        lambda m: Returned(logits=pooled(m)), lambda n: ClassScore(1, of="logit"), lambda o, n, c: [o.logits[0, 1]]
    ),
    "dataclass": Case(
        lambda m: Plain(hidden=m, scores=pooled(m)),
        lambda n: ClassScore(1, of="logit", output="scores"),
        lambda o, n, c: [o.scores[0, 1]],
    ),
    "namedtuple": Case(
        lambda m: Pair(pooled(m), m),
        lambda n: ClassScore(1, of="logit", output="scores"),
        lambda o, n, c: [o.scores[0, 1]],
    ),
    "namespace": Case(
        lambda m: SimpleNamespace(inner=SimpleNamespace(scores=pooled(m))),
        lambda n: ClassScore(1, of="logit", output="inner.scores"),
        lambda o, n, c: [o.inner.scores[0, 1]],
    ),
    "cosine, common": Case(
        lambda m: pooled(m), lambda n: SimilarityScore(REFERENCES[0]), lambda o, n, c: [cosine(o[0], REFERENCES[0])]
    ),
    "cosine, per image": Case(
        lambda m: pooled(m),
        lambda n: SimilarityScore(REFERENCES[:n], each=True),
        lambda o, n, c: [cosine(o[0], REFERENCES[n])],
    ),
    "dot, several": Case(
        lambda m: pooled(m),
        lambda n: SimilarityScore(REFERENCES[:2], by="dot", each=False),
        lambda o, n, c: [dot(o[0], REFERENCES[0]), dot(o[0], REFERENCES[1])],
    ),
    "class difference": Case(
        lambda m: pooled(m),
        lambda n: DifferenceScore(ClassScore([2, 0, 1][:n], of="logit"), ClassScore(of="logit")),
        lambda o, n, c: [o[0, [2, 0, 1][n]] - o[0, best(c[0])]],
    ),
    "all classes less one": Case(
        lambda m: pooled(m),
        lambda n: DifferenceScore(ClassScore("all", of="probability"), ClassScore(0, of="probability")),
        lambda o, n, c: [softmax(o[0], k) - softmax(o[0], 0) for k in range(4)],
    ),
    "finer, predicted": Case(
        lambda m: pooled(m),
        lambda n: FinerScore(references=2),
        lambda o, n, c: [finer(o[0], best(c[0]), near(c[0], best(c[0]), 2), 0.6)],
    ),
    "finer, by softmax": Case(
        lambda m: {"logits": pooled(m)},
        lambda n: FinerScore([[2, 0], [0, 3], [1, 2]][:n], references=2, strength=1, weights="softmax"),
        lambda o, n, c: [
            finer(o["logits"][0], k, near(c["logits"][0], k, 2), 1.0, soft=True) for k in [[2, 0], [0, 3], [1, 2]][n]
        ],
    ),
    "finer, all others": Case(
        lambda m: pooled(m),
        lambda n: FinerScore(1, references=9),
        lambda o, n, c: [finer(o[0], 1, [0, 2, 3], 0.6)],
    ),
    "finer, named": Case(
        lambda m: {"a": [pooled(m)]},
        lambda n: FinerScore(ClassScore([2, 0, 3][:n], output="a.0"), references=(1,), strength=0.25),
        lambda o, n, c: [finer(o["a"][0][0], [2, 0, 3][n], [1], 0.25)],
    ),
    "difference of regions": Case(
        lambda m: m,
        lambda n: DifferenceScore(RegionScore(2, MASKS[:n]), RegionScore(2)),
        lambda o, n, c: [in_mask(o[0, 2], MASKS[n]) - in_mask(o[0, 2], predicted(c, 2))],
    ),
    "channel of a layer": Case(
        lambda m: pooled(m), lambda n: LayerScore("body", 3), lambda o, n, c: [o[0, 3].mean()], layer="body"
    ),
    "channels of a layer": Case(
        lambda m: pooled(m),
        lambda n: LayerScore("body", slice(1, 4, 2)),
        lambda o, n, c: [(o[0, 1].mean() + o[0, 3].mean()) / 2],
        layer="body",
    ),
    "units of a layer": Case(
        lambda m: pooled(m),
        lambda n: LayerScore("body", (3, 0), position=(2, 5), reduce="sum"),
        lambda o, n, c: [o[0, 3, 2, 5] + o[0, 0, 2, 5]],
        layer="body",
    ),
    "unit of a layer": Case(
        lambda m: pooled(m),
        lambda n: LayerScore("body", 3, position=(2, 5)),
        lambda o, n, c: [o[0, 3, 2, 5]],
        layer="body",
    ),
    "function of a layer": Case(
        lambda m: pooled(m),
        lambda n: FunctionScore(energy, layer="body"),
        lambda o, n, c: [o[0, 0].square().mean(), o[0, 1].square().mean()],
        layer="body",
    ),
    "difference of units": Case(
        lambda m: pooled(m),
        lambda n: DifferenceScore(LayerScore("body", 1, reduce="sum"), LayerScore("body", 0, position=(0, 1))),
        lambda o, n, c: [o[0, 1].sum() - o[0, 0, 0, 1]],
        layer="body",
    ),
    "box of N dicts": Case(detected, lambda n: BoxScore(BOXES[:n], 1), found_again, only="occlusion"),
    "box of two tensors": Case(
        lambda m: {"detector": anchored(m)},
        lambda n: BoxScore(BOXES[0], 0, output="detector"),
        lambda o, n, c: [
            max(
                (overlap(b, BOXES[0]) * s[0] for b, s in zip(o["detector"][0][0], o["detector"][1][0], strict=True)),
                key=number,
            )
        ],
        only="occlusion",
    ),
    "function of the output": Case(
        lambda m: (m, pooled(m)),
        lambda n: product,
        lambda o, n, c: [o[1][0, 0] * max(o[0][0].flatten(), key=number)],
    ),
    "function of two": Case(lambda m: m, lambda n: per_image, lambda o, n, c: [in_mask(o[0, 1], MASKS[n], mean=False)]),
    "function of several": Case(
        lambda m: m, lambda n: FunctionScore(pooled, "means"), lambda o, n, c: [plane.mean() for plane in o[0]]
    ),
}
