"""Attention: to which places does the class token attend?"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from attribution.inputs.inputs import Inputs
from attribution.layers import AttentionLayer
from attribution.techniques.attention.family import AttentionOfQuery


@dataclass(frozen=True, kw_only=True)
class Attention(AttentionOfQuery):
    r"""The weights with which one token of a layer gathers what the others hold.

    raw[p] = fused over heads h of A[h, q, p], of the query q; its mean over the grid's queries where there is no q.

    Sign and unit: a part of the row, from 0 to 1; the row adds up to 1 with the leading tokens, unless ``heads`` is
    ``"max"``. Independent of any class. Maps are (N, 1, H, W), one for each layer.

    Args:
        layers: See `AttentionOfQuery`, as all of them. Empty: the last attention over the whole image.
        heads: How heads become one.
        query: Whose row.
        upsample: To the size of the inputs.
        tokens: How the tokens lie on the input.

    Raises:
        InputError: A field is of the wrong type.
        LayerError: When run: see `AttentionOfQuery`.

    Source: M. Caron et al., *Emerging Properties in Self-Supervised Vision Transformers*, ICCV 2021, section 4.2.2 and
    figure 1. Departs from the paper: no threshold.
    """

    name: ClassVar[str] = "attention"
    chained: ClassVar[bool] = False

    def unit_of(self, score: str) -> str:
        """A part of the row of weights."""
        return "part of the attention"

    def _default(self, model: nn.Module, inputs: Inputs) -> list[AttentionLayer]:
        found = super()._default(model, inputs)
        return [each for each in found if not each.windows][-1:] or found[-1:]
