"""Gradient attention: which places does attention carry to the score of a class?"""

from dataclasses import dataclass
from typing import ClassVar

from attribution.techniques.attention.family import AttentionOfQuery


@dataclass(frozen=True, kw_only=True)
class GradientAttention(AttentionOfQuery):
    r"""The chain of all layers' attention, of which each weight counts as far as it raises the score.

    Ā_l = fused over heads of ReLU(∂score / ∂A_l · A_l);  R_0 = I, R_l = R_{l-1} + Ā_l · R_{l-1};
    raw[p] = (R_L − I)[q, p] for the query q, or its mean over the grid's queries.

    Sign and unit: not negative. The first order in Ā is in units of the score. Maps are (N, T, H, W) of
    the input.

    Args:
        layers: See `AttentionOfQuery`, as all of them. Empty: every block. A last layer with one query of its own,
            as of pooling by attention, has no residual connection: its Ā begins the row.
        heads: How heads become one; the paper takes the mean.
        query: Whose row.
        upsample: To the size of the inputs.
        tokens: How the tokens lie on the input.

    Raises:
        InputError: A field is of the wrong type.
        LayerError: When run: see `AttentionOfQuery`; or no attention has an influence on the score.

    Source: H. Chefer, S. Gur, L. Wolf, *Generic Attention-model Explainability for Interpreting Bi-Modal and
    Encoder-Decoder Transformers*, ICCV 2021, equations 5 and 6. Departs from the paper: R − I in place of R, which is
    the same for a class token, since that has no place on the grid.
    """

    name: ClassVar[str] = "gradient_attention"
    needs_target: ClassVar[bool] = True
    takes_gradients: ClassVar[bool] = True

    def unit_of(self, score: str) -> str:
        """None: products of several layers' attention are added to single ones."""
        return ""
