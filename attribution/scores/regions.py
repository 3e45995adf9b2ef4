"""``RegionScore``: a region of a map that a model returns, as in segmentation."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from attribution import numbers
from attribution.errors import ModelError, TargetError
from attribution.scores.outputs import Selector, checked, described, select
from attribution.scores.score import Output, Score, per_row


@dataclass(frozen=True, eq=False)
class RegionScore(Score):
    """Σ over p in the mask of y[n, channel, p], divided by the mask's size for ``reduce="mean"``.

    y is (N, K, *p) of any number of places: logits of a segmentation net.

    Args:
        channel: Of the output.
        mask: (*p), common to all examples, or (N, *p): bool, or numbers that weigh. ``None``: the places that the model
            assigns to the channel on the clean inputs, by the largest channel, or where there is one channel, by a
            value above 0. The mask is fixed then: covered and noisy inputs are asked about the same places.
        reduce: ``"mean"`` over the mask, or ``"sum"``.
        output: Which tensor of the output; see `ClassScore`. Models of torchvision return a dict: ``output="out"``.
        first: Not for the user: the place of a part's first example in the mask.

    Raises:
        TargetError: A field is of another form. When run: the channel is out of range, the mask has another size than
            the output, or a region is empty.
        ModelError: When run: the output is no map (N, K, *p).

    Source: K. Vinogradova et al., *Towards Interpretable Semantic Segmentation via Gradient-weighted Class Activation
    Mapping*, AAAI 2020, equation 3 (a sum over a set of pixels).
    """

    channel: int
    mask: Tensor | None = None
    _: KW_ONLY
    reduce: Literal["mean", "sum"] = "mean"
    output: Selector = None
    first: int = field(default=0, init=True, repr=False)

    per_example: ClassVar[tuple[str, ...]] = ("mask",)

    def __post_init__(self) -> None:
        channel = numbers.integer(self.channel)
        if channel is None or channel < 0:
            raise TargetError(f"RegionScore.channel is {self.channel!r}; give an int of at least 0")
        if self.reduce not in ("mean", "sum"):
            raise TargetError(f"RegionScore.reduce is {self.reduce!r}; give 'mean' or 'sum'")
        object.__setattr__(self, "channel", channel)
        object.__setattr__(self, "output", checked("RegionScore", self.output))
        if self.mask is not None:
            object.__setattr__(self, "mask", _mask(self.mask))

    def check(self, examples: int) -> Self:
        """The same.

        Raises:
            TargetError: The whole mask is empty.
        """
        if self.mask is not None and not bool(self.mask.any()):
            raise TargetError("the region is empty; give a mask with some places")
        return self

    def rows(self, part: slice) -> Self:
        """A mask may be common to all, which only its output tells; so it stays whole, and the part's place is kept."""
        return self.having(first=self.first + (part.start or 0))

    def choose(self, output: Output, examples: Tensor) -> Mapping[str, Any]:
        """The places that are assigned to the channel, where no mask is given.

        Raises:
            TargetError: The region of an example is empty, or the mask has another size than the map.
        """
        maps = self._maps(output, len(examples)).detach()
        own = maps[:, self.channel]
        if self.mask is not None:
            self._refuse_empty(self._weights(own, examples), examples)
            return {}
        region = own > 0 if maps.shape[1] == 1 else maps.argmax(dim=1) == self.channel
        self._refuse_empty(region, examples)
        return {"mask": region}

    def chosen(self, choices: Mapping[str, Any]) -> Self:
        """With the region of each example, counted from the part's first."""
        return self.having(**choices, first=0) if choices else self

    def _refuse_empty(self, weights: Tensor, examples: Tensor) -> None:
        """On the host; elsewhere an empty region makes the score NaN, which is found at the end."""
        if weights.device.type != "cpu":
            return
        empty = ~weights.bool().flatten(1).any(dim=1)
        if bool(empty.any()):
            place = int(examples[int(empty.nonzero()[0])]) + self.first
            said = "the mask leaves no place" if self.mask is not None else "the model assigns no place"
            raise TargetError(f"{said} of example {place} to channel {self.channel}; give another mask, or channel")

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
        rows = examples.to(own.device) + self.first
        if own.device.type == "cpu" and int(rows.max()) >= len(mask):
            raise TargetError(f"the mask has {len(mask)} rows; give one for each example, or one for all")
        return mask[rows]

    def _reduced(self, total: Tensor, weights: Tensor) -> Tensor:
        """The mean over the mask, or the sum; NaN where the region is empty."""
        size = weights.flatten(1).sum(dim=1, keepdim=True)
        return total / (size if self.reduce == "mean" else (size != 0).to(total.dtype))


def _mask(mask: object) -> Tensor:
    """On the host, detached; a tensor, or whatever torch makes one of.

    Raises:
        TargetError: It is no array of finite numbers.
    """
    try:
        found = torch.as_tensor(mask, device="cpu").detach()
        finite = bool(found.isfinite().all())
    except (TypeError, ValueError, RuntimeError) as error:
        raise TargetError(f"RegionScore.mask is a {type(mask).__name__}; give a tensor (*p) or (N, *p)") from error
    if not finite or found.ndim == 0 or found.is_complex():
        raise TargetError("RegionScore.mask must hold finite numbers or bools, in the shape (*p) or (N, *p)")
    return found
