"""Feature ablation: which segments of the input matter, each covered alone?"""

from dataclasses import dataclass
from typing import ClassVar, Self

from attribution.techniques.perturbation.segmented import Segmented


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureAblation(Segmented):
    r"""How much the score drops when a segment of the input is covered.

    map[p] = score(x) − score(x with the segment of place p set to the baseline).

    Sign and unit: positive where covering lowered the score, in units of the score; of classes that is the probability,
    unless the target says otherwise. Inputs are those of `Occlusion`, maps (N, T, *places). Of several explained inputs
    each is covered alone, and has a map of its own. ``Execution.batch_size`` counts covered segments.

    Args:
        segments: Which segment each place belongs to; see `Segmented`.
        baseline: What covers; see `Perturbation`. The σ of ``"blur"`` is 10 places.
        input: The one input that is covered; ``None``: every explained one.

    Raises:
        InputError: A field is out of range, or does not fit the input.
        ModelError: When run: the probability of a model with a single output, whose softmax is always 1.

    Source: M. D. Zeiler, R. Fergus, *Visualizing and Understanding Convolutional Networks*, ECCV 2014, section 4.2, of
    segments in place of windows, as Captum's ``FeatureAblation``.
    """

    name: ClassVar[str] = "feature_ablation"

    @classmethod
    def example(cls) -> Self:
        """A few segments."""
        return cls(segments=4)
