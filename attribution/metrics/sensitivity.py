"""``MaxSensitivity``: how far a map moves when the photo hardly does."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from attribution.metrics import witnesses
from attribution.metrics.draws import generator
from attribution.metrics.metric import Better, Case, Metric
from attribution.running.upload import upload
from attribution.techniques.parameters import integer, real

Explanation = Callable[[Tensor, Tensor], Tensor]
"""(R, …) inputs and (R,) photos → (R, …) maps."""

_NOISE = 4


@dataclass(frozen=True, kw_only=True)
class MaxSensitivity(Metric):
    """max over u of ‖Φ(x + u) − Φ(x)‖ / ‖Φ(x)‖, u uniform with |u| ≤ radius · (max x − min x); 2-norms.

    The explained classes are those of x. A map of zeros counts as one of norm 1. Without unit. Lower is smoother, which
    is not the same as better: a constant map has 0.

    Args:
        samples: Draws of u of each photo.
        radius: As a part of the photo's range.
        backend: Who computes: ``"torch"``, or a witness such as ``"captum"``.

    Raises:
        InputError: A field is out of range.

    Source: C.-K. Yeh et al., *On the (In)fidelity and Sensitivity of Explanations*, NeurIPS 2019, definition 3.1.
    Departs from the paper: divided by the map's norm, as Captum does; the radius goes by the range of the photo.
    """

    name: ClassVar[str] = "max_sensitivity"
    better: ClassVar[Better] = "lower"

    samples: int = 10
    radius: float = 0.02
    backend: str = witnesses.OWN

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", integer("MaxSensitivity", "samples", self.samples, least=1))
        object.__setattr__(self, "radius", real("MaxSensitivity", "radius", self.radius, zero=False))

    def measure(self, case: Case) -> Mapping[str, Tensor]:
        """(N, T); nothing of a map that was given as it is."""
        if case.technique is None:
            return {}
        inputs, x = case.inputs, case.inputs.tensor.detach()
        drawn = torch.stack([self._noise(case, x, n) for n in range(len(x))], dim=1)
        noise = upload(drawn, x.device, x.dtype)
        own: Any = max_sensitivity
        if self.backend != witnesses.OWN:
            own = witnesses.find("max_sensitivity", self.backend)

        def explanation(column: int) -> Explanation:
            def ask(shown: Tensor, examples: Tensor) -> Tensor:
                found = case.again(inputs=inputs[examples].replaced(shown), examples=examples)
                return torch.cat([map_[:, column].flatten(1) for map_ in found.maps.values()], dim=1)

            return ask

        return {"": torch.stack([own(explanation(t), x, noise) for t in range(case.map.shape[1])], dim=1)}

    def _noise(self, case: Case, x: Tensor, n: int) -> Tensor:
        source = generator(case.seed, case.first + n, _NOISE)
        drawn = torch.rand((self.samples, *x.shape[1:]), generator=source, dtype=torch.float64, device="cpu")
        low, high = (float(each) for each in x[n].aminmax())
        return (2 * drawn - 1) * self.radius * ((high - low) or 1.0)


def max_sensitivity(explanation: Explanation, x: Tensor, noise: Tensor) -> Tensor:
    """(N,).

    Args:
        explanation: Maps of photos.
        x: (N, …).
        noise: (samples, N, …).
    """
    photos = torch.arange(len(x), device=x.device)
    clean = explanation(x, photos).double()
    size = clean.norm(dim=1)
    size = torch.where(size == 0, torch.ones_like(size), size)
    moved = [(explanation(x + each, photos).double() - clean).norm(dim=1) / size for each in noise]
    return torch.stack(moved).amax(dim=0)
