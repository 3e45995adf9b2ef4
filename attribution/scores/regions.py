"""``RegionScore``: a region of a map that a model returns, as in segmentation."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor

from attribution.errors import ModelError, TargetError
from attribution.scores.outputs import Selector, checked, described, select
from attribution.scores.parameters import held, index, word
from attribution.scores.score import Finding, Output, Score, per_row


@dataclass(frozen=True, eq=False)
class RegionScore(Score):
    """Σ over p in the mask of y[n, channel, p], divided by the mask's size for ``reduce="mean"``.

    y is (N, K, *p) of any number of places: logits of a segmentation net.

    Args:
        channel: Of the output.
        mask: (*p), common to all examples, or (N, *p): bool, or weights of at least 0. ``None``: the places that the
            model assigns to the channel on the clean inputs, by the largest channel, or where there is one channel, by
            a value above 0. The mask is fixed then: covered and noisy inputs are asked about the same places.
        reduce: ``"mean"`` over the mask, or ``"sum"``.
        output: Which tensor of the output; see `ClassScore`. Models of torchvision return a dict: ``output="out"``.

    Raises:
        TargetError: A field is of another form, or the mask holds no place or a negative weight. When run: the channel
            is out of range, the mask has another size than the output or another number of rows than there are
            examples, or the region of one example is empty. On an accelerator an empty region is read together with
            other flags, so that the error may come at the end of the call.
        ModelError: When run: the output is no map (N, K, *p).

    Source: K. Vinogradova et al., *Towards Interpretable Semantic Segmentation via Gradient-weighted Class Activation
    Mapping*, AAAI 2020, equation 3 (a sum over a set of pixels).
    """

    channel: int
    mask: Tensor | None = None
    _: KW_ONLY
    reduce: Literal["mean", "sum"] = "mean"
    output: Selector = None
    _first: int = field(default=0, init=False, repr=False, compare=False)
    """The place of a part's first example in the mask."""
    _rows: int | None = field(default=None, init=False, repr=False, compare=False)
    """How many rows a mask with a row for each example has."""
    _predicted: bool = field(default=False, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "channel", index("RegionScore", "channel", self.channel))
        word("RegionScore", "reduce", self.reduce, ("mean", "sum"))
        object.__setattr__(self, "output", checked("RegionScore", self.output))
        if self.mask is not None:
            object.__setattr__(self, "mask", _mask(self.mask))

    def check(self, examples: int) -> Self:
        """With the number of examples, which the mask must have rows for unless it is common to all.

        Raises:
            TargetError: The region is the predicted one of other examples.
        """
        if self._predicted and self._rows != examples:
            raise TargetError(
                f"the region was predicted for {self._rows} examples, and these are {examples}; give RegionScore("
                f"{self.channel}) for the regions of these, or a mask"
            )
        return self.having(_rows=examples)

    def rows(self, part: slice) -> Self:
        """A mask may be common to all, which only its output tells; so it stays whole, and the part's place is kept."""
        return self.having(_first=self._first + (part.start or 0))

    def choose(self, output: Output, examples: Tensor) -> Mapping[str, Any]:
        """The places that are assigned to the channel, where no mask is given."""
        if self.mask is not None:
            return {}
        maps = self._maps(output, len(examples)).detach()
        return {"mask": maps[:, 0] > 0 if maps.shape[1] == 1 else maps.argmax(dim=1) == self.channel}

    def chosen(self, choices: Mapping[str, Any]) -> Self:
        """With the region of each example, counted from the part's first."""
        return self.having(**choices, _first=0, _rows=len(choices["mask"]), _predicted=True) if choices else self

    def findings(self, output: Output, examples: Tensor) -> Sequence[Finding]:
        """The region of an example is empty."""
        own, weights = self._weighed(output, examples)
        empty = ~weights.bool().flatten(1).any(dim=1)

        def refused() -> TargetError:
            row = int(empty.nonzero()[0])
            whose = f"example {row + self._first}" if len(own) == len(weights) else "every example"
            said = "the model assigns no place" if self._predicted else "the mask leaves no place"
            return TargetError(f"{said} of {whose} to channel {self.channel}; give another mask, or channel")

        return (Finding(empty.any(), refused),)

    def values(self, output: Output, examples: Tensor) -> Tensor:
        """(B, 1)."""
        own, weights = self._weighed(output, examples)
        return self._reduced((own * weights).flatten(1).sum(dim=1, keepdim=True), weights)

    def scale(self, output: Output, examples: Tensor, matrix: Tensor) -> Tensor:
        """The same of absolute values: what rounding of a sum goes by."""
        own, weights = self._weighed(output, examples)
        return self._reduced((own.detach() * weights).abs().flatten(1).sum(dim=1, keepdim=True), weights)

    def names(self, columns: Tensor) -> tuple[tuple[str, ...], ...]:
        """``"channel 2"``."""
        return tuple((str(self),) for _ in columns)

    def __str__(self) -> str:
        return f"channel {self.channel}"

    def _maps(self, output: Output, rows: int) -> Tensor:
        maps = per_row(select(output, self.output), rows, "the map")
        if maps.ndim < 3:
            raise ModelError(f"the model returns {described(maps)}; a region is part of a map (N, K, *places)")
        if self.channel >= maps.shape[1]:
            raise TargetError(
                f"channel {self.channel} is out of range; the map has {maps.shape[1]}, 0 to {maps.shape[1] - 1}"
            )
        return maps

    def _weighed(self, output: Output, examples: Tensor) -> tuple[Tensor, Tensor]:
        """The channel (B, *p) and its mask, in float32 at least: half precision cannot count a large region.

        Raises:
            TargetError: No region is settled, or the mask has another size.
        """
        own = self._maps(output, len(examples))[:, self.channel]
        if self.mask is None:
            raise TargetError("the region is the predicted one, which only the clean inputs can settle")
        wide = torch.promote_types(own.dtype, torch.float32)
        return own.to(wide), self._weights(own, examples).to(wide)

    def _weights(self, own: Tensor, examples: Tensor) -> Tensor:
        """The mask of each row, (B, *p) or (1, *p)."""
        assert self.mask is not None
        mask = self.mask.to(own.device)
        mask = mask[None] if mask.ndim == own.ndim - 1 else mask
        if mask.shape[1:] != own.shape[1:]:
            raise TargetError(f"the mask has size {tuple(mask.shape[1:])}, the model's map {tuple(own.shape[1:])}")
        if len(mask) == 1:
            return mask
        if self._rows is not None and len(mask) != self._rows:
            raise TargetError(
                f"the mask has {len(mask)} rows for {self._rows} examples; give one for each, or one for all"
            )
        return mask[examples.to(own.device) + self._first]

    def _reduced(self, total: Tensor, weights: Tensor) -> Tensor:
        """The mean over the mask, or the sum; NaN where the region is empty."""
        size = weights.flatten(1).sum(dim=1, keepdim=True)
        return total / (size if self.reduce == "mean" else (size != 0).to(total.dtype))


def _mask(mask: object) -> Tensor:
    """On the host, detached; a tensor, or whatever torch makes one of.

    Raises:
        TargetError: It is no array of bools or weights, or holds no place at all.
    """
    found = held("RegionScore", "mask", mask, "bools or weights of at least 0, (*p) or (N, *p)")
    if found.ndim == 0 or bool((found < 0).any()):
        raise TargetError(
            "RegionScore.mask is a single number or holds negative weights; give bools or weights of at least 0, "
            "(*p) or (N, *p). Of what counts against it make a DifferenceScore"
        )
    if not bool(found.any()):
        raise TargetError("the region is empty; give a mask with some places")
    return found
