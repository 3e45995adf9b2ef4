"""``SimilarityScore``: how near an embedding is to a reference."""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from attribution import numbers
from attribution.errors import ModelError, TargetError
from attribution.scores.outputs import Selector, checked, described, select
from attribution.scores.parameters import held, word
from attribution.scores.score import Output, Score, per_row


@dataclass(frozen=True, eq=False)
class SimilarityScore(Score):
    """⟨e, r⟩ / (‖e‖ · ‖r‖) of an embedding e = y[n] and references r, or ⟨e, r⟩ for ``by="dot"``.

    For CLIP, face and re-identification nets: which parts of an image make it like the reference?

    Args:
        reference: (D,), common to all examples; (N, D), one per example; or (T, D), several common ones, of which each
            is a target. (N, D) and (T, D) are told apart by ``each``.
        by: ``"cosine"``, without a unit in [−1, 1], or ``"dot"``.
        each: Whether the rows of a reference with two axes belong to the examples (N, D), or are targets for all
            (T, D). ``None``: to the examples where there are as many, more than one.
        output: Which tensor of the output is the embedding (N, D); see `ClassScore`.

    Raises:
        TargetError: The reference is no array of finite numbers with one or two axes, or zero, or ``by`` is neither of
            the two. When run: it has another length than the embedding.
        ModelError: When run: the output is no embedding (N, D).
    """

    reference: Tensor
    _: KW_ONLY
    by: Literal["cosine", "dot"] = "cosine"
    each: bool | None = None
    output: Selector = None

    per_example: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        word("SimilarityScore", "by", self.by, ("cosine", "dot"))
        found = held("SimilarityScore", "reference", self.reference, "finite numbers (D,), (N, D) or (T, D)")
        if found.ndim not in (1, 2):
            raise TargetError(
                f"SimilarityScore.reference has shape {tuple(found.shape)}; give finite numbers (D,), (N, D) or (T, D)"
            )
        if self.by == "cosine" and not bool(found.any(dim=-1).all()):
            raise TargetError("SimilarityScore.reference is zero, which has no direction; give another, or by='dot'")
        if self.each is not None and (numbers.flag(self.each) is None or found.ndim == 1):
            raise TargetError(f"SimilarityScore.each is {self.each!r}; a bool, for references with two axes only")
        object.__setattr__(self, "reference", found)
        object.__setattr__(self, "each", numbers.flag(self.each))
        object.__setattr__(self, "output", checked("SimilarityScore", self.output))

    def check(self, examples: int) -> Self:
        """With ``each`` settled.

        Raises:
            TargetError: The references are one per example, of another number of examples.
        """
        if self.reference.ndim == 1:
            return self
        each = (len(self.reference) == examples > 1) if self.each is None else self.each
        if each and len(self.reference) != examples:
            raise TargetError(f"SimilarityScore.reference has {len(self.reference)} rows for {examples} examples")
        return self.having(each=each)

    def rows(self, part: slice) -> Self:
        """With the references of these examples."""
        return self.having(reference=self.reference[part]) if self.each else self

    def values(self, output: Output, examples: Tensor) -> Tensor:
        """(B, T)."""
        embedding, reference = self._pair(output, examples)
        if self.by == "cosine":
            embedding, reference = F.normalize(embedding, dim=-1, eps=0), F.normalize(reference, dim=-1, eps=0)
        return (embedding[:, None] * reference).sum(dim=-1)

    def scale(self, output: Output, examples: Tensor, matrix: Tensor) -> Tensor:
        """1 of a cosine, the product of absolute values else: a sum near zero rounds by its parts."""
        if self.by == "cosine":
            return torch.ones_like(matrix)
        embedding, reference = self._pair(output, examples)
        return (embedding.detach().abs()[:, None] * reference.abs()).sum(dim=-1)

    def __str__(self) -> str:
        return self.by

    def _pair(self, output: Output, examples: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) and (B or 1, T, D)."""
        embedding = per_row(select(output, self.output), len(examples), "the embedding")
        if embedding.ndim > 2 and embedding.shape[2:].numel() == 1:
            embedding = embedding.flatten(1)
        if embedding.ndim != 2:
            raise ModelError(f"the model returns {described(embedding)}; an embedding is (N, D): name it by output=…")
        if self.reference.shape[-1] != embedding.shape[1]:
            raise TargetError(
                f"SimilarityScore.reference has {self.reference.shape[-1]} numbers, the embedding {embedding.shape[1]}"
            )
        wide = torch.promote_types(embedding.dtype, torch.float32)
        reference = self.reference.to(embedding.device, wide)
        if self.each:
            reference = reference[examples.to(embedding.device)][:, None]
        else:
            reference = reference.reshape(1, -1, embedding.shape[1])
        return embedding.to(wide), reference
