"""LeGrad: to the attention on which places is the score of a class sensitive, layer by layer?"""

from dataclasses import dataclass
from typing import ClassVar, Self

from torch import nn

from attribution.errors import LayerError
from attribution.inputs.inputs import Inputs
from attribution.layers import AttentionLayer, attention_of, block_of
from attribution.techniques.attention.family import AttentionMap


@dataclass(frozen=True, kw_only=True)
class LeGrad(AttentionMap):
    r"""Gradients of the scores that a model would give to the features of each layer, with respect to its attention.

    s_l = the score of what the model's last layers make of block l's output;
    raw[p] = mean over layers l and queries i of fused over heads of ReLU(∂s_l / ∂A_l[h, i, p]).

    Sign and unit: not negative; in units of the score. Maps are (N, T, H, W) of the input.

    Args:
        layers: See `AttentionMap`, as all of them. Empty: every block. The last of these must be in the model's last
            block, whose output the model's last layers read. Pooling by attention is one of those.
        heads: How heads become one; the paper takes the mean.
        upsample: To the size of the inputs.
        tokens: How the tokens lie on the input.

    Raises:
        InputError: A field is of the wrong type.
        LayerError: When run: see `AttentionMap`; or a block's output cannot stand in for the last one's.

    Source: W. Bousselham, A. Boggust, S. Chaybouti, H. Strobelt, H. Kuehne, *LeGrad: An Explainability Method for
    Vision Transformers via Feature Formation Sensitivity*, arXiv 2404.03214, 2024, section 3. Departs from the paper:
    the map is not scaled to [0, 1]; the score may be any score, and no feature is normalised beyond what the model
    does. Where attention pools the tokens, the paper takes the gradient of its weights; here those of the blocks.
    """

    name: ClassVar[str] = "legrad"
    title: ClassVar[str] = "LeGrad"
    needs_target: ClassVar[bool] = True
    takes_gradients: ClassVar[bool] = True

    def _default(self, model: nn.Module, inputs: Inputs) -> list[AttentionLayer]:
        found = super()._default(model, inputs)
        return [each for each in found if each.queries > 1] or found

    def resolve(self, model: nn.Module, inputs: Inputs) -> Self:
        """Fill in the layers, of which no two lie in one block."""
        found = super().resolve(model, inputs)
        if len(set(found.blocks(model, inputs))) < len(found.layers):
            raise LayerError("two of the layers lie in one block, which has one output; name one of each block")
        return found

    def blocks(self, model: nn.Module, inputs: Inputs) -> list[str]:
        """The block of each layer of a resolved technique, whose output is scored for it."""
        return [block_of(model, inputs, layer) for layer in attention_of(model, inputs, self.layers)]
