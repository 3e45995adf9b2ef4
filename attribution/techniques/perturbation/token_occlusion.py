"""Token occlusion: which tokens of a transformer matter most?"""

from dataclasses import dataclass
from math import prod
from typing import ClassVar, Self

from torch import nn

from attribution.errors import InputError
from attribution.inputs.inputs import Inputs
from attribution.layers import check_chain, covering, grid_of
from attribution.technique import Maps
from attribution.techniques.cam.family import enlarged
from attribution.techniques.parameters import flag, one_or_several, tokens
from attribution.techniques.perturbation.family import ScoreDifference
from attribution.techniques.perturbation.lattice import Lattice, intervals


@dataclass(frozen=True, kw_only=True)
class TokenOcclusion(ScoreDifference):
    r"""How much the score drops when the tokens of a window are not there.

    δ[w] = score(all tokens) − score(without the tokens of window w);
    raw[p] = mean of δ[w] over the windows w that hold token p.

    Tokens are left out in front of the first block, behind their embedding: each token that stays has the position that
    it had. Class, distillation and register tokens stay. This is another number than that of `Occlusion`, which shows
    the model an image with a grey place: here the model is told nothing of a place, and no baseline is chosen. The
    network must read its tokens as a set, as vision transformers do.

    Sign and unit: positive where leaving out lowered the score, in units of the score; of classes that is the
    probability, unless the target says otherwise. Raw maps are (N, T, h, w), a place for each token of the grid; maps
    are (N, T, H, W) of the input.

    Args:
        window: Size of the window in tokens: one int for all axes of the grid, or one for each, such as (h, w).
        stride: Step in tokens, 1 to the window's, likewise. The last window along an axis is cut at the border.
        upsample: To the places of the inputs, bilinear, without aligned corners.
        tokens: ``(leading, h, w)``: how the tokens lie on the input; see `AttentionMap`.

    Raises:
        InputError: A field is out of range, or the window is larger than the grid, or leaves no token.
        LayerError: When run: the model computes no attention that can be seen, or computes it in windows or between
            different numbers of tokens; nothing tells where the tokens lie; or the order of the tokens counts.

    Source: S. Jain, H. Salman et al., *Missingness Bias in Model Debugging*, ICLR 2022, section 2.2, where tokens are
    left out of a vision transformer. Departs from the paper: windows and differences are those of `Occlusion`.
    """

    name: ClassVar[str] = "token_occlusion"
    needs_attention: ClassVar[bool] = True

    window: int | tuple[int, ...] = 3
    stride: int | tuple[int, ...] = 1
    upsample: bool = True
    tokens: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("window", "stride"):
            object.__setattr__(self, name, one_or_several("TokenOcclusion", name, getattr(self, name)))
        object.__setattr__(self, "upsample", flag("TokenOcclusion", "upsample", self.upsample))
        object.__setattr__(self, "tokens", tokens("TokenOcclusion", self.tokens))
        if self.tokens is not None:
            self.sizes(self.tokens)

    def resolve(self, model: nn.Module, inputs: Inputs) -> Self:
        """The same; a model whose tokens cannot be left out is refused."""
        self.sizes(self.grid(model, inputs))
        return self

    def grid(self, model: nn.Module, inputs: Inputs) -> tuple[int, ...]:
        """(leading, *places): how the tokens lie; one rule for every backend.

        Raises:
            LayerError: See the class.
        """
        chain = covering(model, inputs, self.tokens)
        check_chain(model, inputs, chain, every=True)
        return grid_of(model, inputs, chain, self.tokens)

    def sizes(self, tokens: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Window and stride along each axis of a grid of tokens (leading, *places).

        Raises:
            InputError: They do not fit the grid.
        """
        leading, *places = tokens
        window, step = (
            each if isinstance(each, tuple) else (each,) * len(places) for each in (self.window, self.stride)
        )
        if not len(window) == len(step) == len(places) or any(w > n for w, n in zip(window, places, strict=True)):
            raise InputError(
                f"TokenOcclusion has windows of {self.window} by steps of {self.stride}, and the grid {tuple(places)} "
                "tokens; give one int, or one for each axis, the window no larger than the grid"
            )
        if any(n > w for w, n in zip(window, step, strict=True)):
            raise InputError(
                f"TokenOcclusion.stride {step} is larger than the window {window}: tokens would be skipped"
            )
        if not leading and prod(window) == prod(places):
            raise InputError(
                f"TokenOcclusion.window {window} holds every token: none would be left; give a smaller one"
            )
        return window, step

    def lattice(self, tokens: tuple[int, ...]) -> Lattice:
        """The windows on such a grid; the one choice that all backends share."""
        along = zip(tokens[1:], *self.sizes(tokens), strict=True)
        return Lattice(tuple(intervals(size, window, step, whole_only=False) for size, window, step in along))

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        """Upsampling to the places of the inputs."""
        return {name: enlarged(map_, inputs) for name, map_ in raw.items()} if self.upsample else raw

    @classmethod
    def example(cls) -> Self:
        """Windows for the grids of the small models."""
        return cls(window=2)
