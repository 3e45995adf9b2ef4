"""``BoxScore``: an object that a detector found."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from attribution.errors import ModelError, TargetError
from attribution.scores.outputs import Selector, checked, described, entry
from attribution.scores.parameters import held, index
from attribution.scores.score import Output, Score

BOXES, SCORES, LABELS = "boxes", "scores", "labels"


@dataclass(frozen=True, eq=False)
class BoxScore(Score):
    """max over boxes b of overlap(b, box) · score(b, target): whether the object is still found, and where it was.

    The overlap is the intersection divided by the union. A detector returns N dicts with ``"boxes"`` (B, 4),
    ``"scores"`` (B,) and ``"labels"`` (B,), as torchvision's do; or a dict or pair of boxes (N, B, 4) and scores
    (N, B, K). Corners are x0, y0, x1, y1. Without any box the value is 0.

    Args:
        box: (4,), common to all examples, or (N, 4).
        target: The class.
        output: Which part of the output holds all this; see `ClassScore`.

    Raises:
        TargetError: The box is no box, or the target no class.
        ModelError: When run: the output is none of the forms.

    Source: V. Petsiuk et al., *Black-box Explanation of Object Detectors via Saliency Maps* (D-RISE), CVPR 2021,
    section 3.2. Departs from the paper: no term of objectness, and the score of the class, not the cosine of
    all.
    """

    box: Tensor
    target: int
    _: KW_ONLY
    output: Selector = None

    per_example: ClassVar[tuple[str, ...]] = ("box",)

    def __post_init__(self) -> None:
        target = index("BoxScore", "target", self.target, "a class, an int of at least 0")
        box = held("BoxScore", "box", self.box, "x0, y0, x1, y1, or (N, 4) of them")
        box = box if box.is_floating_point() else box.to(torch.float32)
        box = box[None] if box.ndim == 1 else box
        if box.ndim != 2 or box.shape[1] != 4 or not bool((box[:, 2:] > box[:, :2]).all()):
            raise TargetError(f"BoxScore.box is {self.box!r}; give x0, y0, x1, y1 with x1 > x0 and y1 > y0, or (N, 4)")
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "box", box)
        object.__setattr__(self, "output", checked("BoxScore", self.output))

    def values(self, output: Output, examples: Tensor) -> Tensor:
        """(B, 1)."""
        found = output if self.output is None else entry(output, self.output)
        if isinstance(found, list | tuple) and found and all(isinstance(item, Mapping) for item in found):
            rows = [self._detected(item) for item in found]
            if len(rows) != len(examples):
                raise ModelError(f"the model returns {len(rows)} dicts for {len(examples)} examples; expected one each")
        else:
            boxes, scores = _both(found)
            if boxes.ndim != 3 or boxes.shape[2] != 4 or scores.ndim != 3 or len(boxes) != len(examples):
                raise _unknown(found)
            if self.target >= scores.shape[2]:
                raise TargetError(f"class {self.target} is out of range; the detector scores {scores.shape[2]}")
            rows = [*zip(boxes, scores[..., self.target], strict=True)]
        wanted = self.box.to(rows[0][0].device, torch.promote_types(rows[0][1].dtype, torch.float32))
        wanted = wanted.expand(len(rows), 4) if len(wanted) == 1 else wanted[examples.to(wanted.device)]
        return torch.stack([_best(*row, box) for row, box in zip(rows, wanted, strict=True)])[:, None]

    def _detected(self, item: Mapping[Any, Any]) -> tuple[Tensor, Tensor]:
        """Boxes (B, 4) of an example, and their scores, 0 where they are of another class.

        Raises:
            ModelError: They are something else.
        """
        boxes, scores, labels = (item.get(name) for name in (BOXES, SCORES, LABELS))
        if not isinstance(boxes, Tensor) or not isinstance(scores, Tensor) or not isinstance(labels, Tensor):
            raise _unknown(item)
        if scores.ndim != 1 or labels.shape != scores.shape or boxes.shape != (len(scores), 4):
            raise _unknown(item)
        return boxes, scores * (labels == self.target)

    def scale(self, output: Output, examples: Tensor, matrix: Tensor) -> Tensor:
        """1: an overlap times a probability."""
        return torch.ones_like(matrix)

    def __str__(self) -> str:
        return f"box of class {self.target}"


def _best(boxes: Tensor, scores: Tensor, wanted: Tensor) -> Tensor:
    """The largest overlap · score of one example."""
    wide = torch.promote_types(scores.dtype, torch.float32)
    if not len(boxes):
        return scores.new_zeros((), dtype=wide)
    boxes, wanted = boxes.to(wide), wanted.to(wide)
    corner = torch.minimum(boxes[:, 2:], wanted[2:]) - torch.maximum(boxes[:, :2], wanted[:2])
    shared = corner.clamp(min=0).prod(dim=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1) + (wanted[2:] - wanted[:2]).prod()
    return (shared / (areas - shared) * scores.to(wide)).amax()


def _both(found: Any) -> tuple[Tensor, Tensor]:
    if isinstance(found, Mapping) and isinstance(found.get(BOXES), Tensor) and isinstance(found.get(SCORES), Tensor):
        return found[BOXES], found[SCORES]
    if isinstance(found, list | tuple) and len(found) == 2 and all(isinstance(item, Tensor) for item in found):
        return found[0], found[1]
    raise _unknown(found)


def _unknown(found: Any) -> ModelError:
    return ModelError(
        f"the model returns {described(found)}; a box needs N dicts with 'boxes', 'scores' and 'labels', or boxes "
        "(N, B, 4) and scores (N, B, K)"
    )
