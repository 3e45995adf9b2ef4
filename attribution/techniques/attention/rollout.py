"""Attention rollout: from which places does attention carry something to the class token, over all layers?"""

from dataclasses import dataclass
from typing import ClassVar

from attribution.techniques.attention.family import AttentionOfQuery


@dataclass(frozen=True, kw_only=True)
class AttentionRollout(AttentionOfQuery):
    r"""The product of all layers' attention, each mixed with the residual connection beside it.

    Â_l = (A_l + I) / (1 + row sums of A_l), A_l fused over heads, which is A_l / 2 + I / 2 for their mean;
    raw[p] = (Â_L · … · Â_1)[q, p] for the query q, or its mean over the grid's queries.

    Sign and unit: a part of the row, from 0 to 1; the row adds up to 1 with the leading tokens. Independent of any
    class. Maps are (N, 1, H, W) of the input.

    Args:
        layers: See `AttentionOfQuery`, as all of them. Empty: every block. A last layer with one query of its own,
            as of pooling by attention, has no residual connection and begins the row.
        heads: How heads become one.
        query: Whose row.
        upsample: To the size of the inputs.
        tokens: How the tokens lie on the input.

    Raises:
        InputError: A field is of the wrong type.
        LayerError: When run: see `AttentionOfQuery`. Windowed attention has no such product.

    Source: S. Abnar, W. Zuidema, *Quantifying Attention Flow in Transformers*, ACL 2020, section 3, equation 1. Departs
    from the paper: nowhere; no weights are discarded.
    """

    name: ClassVar[str] = "attention_rollout"

    def unit_of(self, score: str) -> str:
        """A part of the row of weights."""
        return "part of the attention"
