"""``Infidelity``: how far a map is off the change of the score under small noise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.errors import InputError, NonFiniteError
from attribution.inputs.inputs import Inputs
from attribution.lowered.forwards import Forward, forwarding
from attribution.metrics import witnesses
from attribution.metrics.draws import generator
from attribution.metrics.metric import Better, Case, Metric, over_places
from attribution.metrics.settled import explained_by
from attribution.running.execution import CPU_WINDOWS
from attribution.running.upload import upload
from attribution.technique import Kind, Maps, Technique
from attribution.techniques.parameters import flag, integer, real

Change = Callable[[Tensor, Tensor], Tensor]
"""(R, …) inputs and (R,) photos → (R,) scores."""

_NOISE = 3


@dataclass(frozen=True, kw_only=True)
class Infidelity(Metric):
    """E over noise I of (Σ I · M − (S(x) − S(x − I)))², with I normal; M is the map in input space.

    A map without channels stands for each channel; in a coarse one each place has the value of its cell. ``normalise``
    scales the map by the β that makes the value smallest, E[ΔS · Σ I M] / E[(Σ I M)²], without which maps of different
    units cannot be compared. S is the logit of a class unless the target says otherwise. Unit: the score's, squared.
    Lower is better; a map of zeros has E[ΔS²].

    Args:
        samples: Draws of noise of each photo.
        noise: Standard deviation as a part of max x − min x of the photo.
        normalise: See above.
        backend: Who computes: ``"torch"``, or a witness such as ``"captum"``.

    Raises:
        InputError: A field is out of range. When run: the photos have several explained inputs.

    Source: C.-K. Yeh et al., *On the (In)fidelity and Sensitivity of Explanations*, NeurIPS 2019, definition 2.1.
    """

    name: ClassVar[str] = "infidelity"
    better: ClassVar[Better] = "lower"

    samples: int = 50
    noise: float = 0.05
    normalise: bool = True
    backend: str = witnesses.OWN

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", integer("Infidelity", "samples", self.samples, least=1))
        object.__setattr__(self, "noise", real("Infidelity", "noise", self.noise, zero=False))
        object.__setattr__(self, "normalise", flag("Infidelity", "normalise", self.normalise))

    def measure(self, case: Case) -> Mapping[str, Tensor]:
        """(N, T)."""
        given = case.given
        asked = _Shaken(map=over_places(case.map.detach(), case.inputs), metric=self, seed=case.seed, first=case.first)
        target = explained_by({"map": given}) if case.target is None else case.target
        found = _Shaker(case.model, asked, case.execution).attribute(case.inputs, target)
        return {"": found.map[..., 0]}


def infidelity(change: Change, x: Tensor, map_: Tensor, noise: Tensor, *, normalise: bool, at_once: int) -> Tensor:
    """(N,), in float64.

    Args:
        change: Scores of changed photos.
        x: (N, …).
        map_: Of its shape.
        noise: (samples, N, …).
        normalise: See `Infidelity`.
        at_once: Rows of a forward.
    """
    photos = torch.arange(len(x), device=x.device)
    clean = torch.cat([change(x[part], part) for part in photos.split(at_once)]).double()
    rows = torch.arange(noise.shape[0] * len(x), device=x.device)
    fell = torch.cat(
        [
            clean[part % len(x)] - change(x[part % len(x)] - noise.flatten(0, 1)[part], part % len(x)).double()
            for part in rows.split(at_once)
        ]
    ).unflatten(0, noise.shape[:2])
    told = (noise.double() * map_.double()).flatten(2).sum(dim=2)
    if normalise:
        size = told.square().sum(dim=0)
        told = told * torch.where(size > 0, (told * fell).sum(dim=0) / size, torch.zeros_like(size))
    found: Tensor = (told - fell).square().mean(dim=0)
    return found


@dataclass(frozen=True, kw_only=True)
class _Shaken(Technique):
    """The question of `Infidelity`, so that it is checked, isolated and split as `explain` does it."""

    name: ClassVar[str] = "infidelity"
    kind: ClassVar[Kind] = "heatmap"
    needs_target: ClassVar[bool] = True
    batch_of: ClassVar[Literal["images", "windows", "filters"]] = "windows"
    compares_scores: ClassVar[bool] = False
    takes_gradients: ClassVar[bool] = False

    map: Tensor
    metric: Infidelity
    seed: int
    first: int

    def check(self, inputs: Inputs) -> None:
        """One explained input, and a finite map of it."""
        if len(self.map) != len(inputs):
            raise InputError(f"the map has {len(self.map)} rows for {len(inputs)} examples; give one for each")
        shape = inputs.tensor.shape
        if self.map.shape[2:] not in (shape[1:], shape[2:]):
            raise InputError(f"the map has shape {tuple(self.map.shape)} for inputs {inputs}; expected (N, T, *places)")
        if not bool(torch.isfinite(self.map).all()):
            raise NonFiniteError("the map holds NaN or infinity, so that nothing can be said of it")

    def rows(self, part: slice, inputs: Inputs) -> "_Shaken":
        """Of some photos."""
        if part.start == 0 and part.stop >= len(inputs):
            return self
        return _Shaken(map=self.map[part], metric=self.metric, seed=self.seed, first=self.first + part.start)

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        """As it is."""
        return raw


class _Shaker(Attributor[_Shaken]):
    """By forwards of noisy photos."""

    technique_type: ClassVar[type[Technique]] = _Shaken
    backend: ClassVar[str] = "forwards"

    def compute(self, run: Run[_Shaken]) -> Maps:
        """(N, T, 1)."""
        asked, x = run.technique, run.inputs.tensor
        metric = asked.metric
        own: Any = infidelity if metric.backend == witnesses.OWN else witnesses.find("infidelity", metric.backend)
        most = CPU_WINDOWS if x.device.type == "cpu" else None
        at_once = run.execution.chunk(layers.peak_bytes(run.model, run.inputs), 2**31, most=most)
        noise = upload(torch.stack([self._noise(asked, x, n) for n in range(len(x))], dim=1), x.device, x.dtype)
        with torch.no_grad():
            photos = torch.arange(len(x), device=x.device)
            matrix = torch.cat([run.matrix(run.forward(run.inputs[p], p), p) for p in photos.split(at_once)])
            targets = run.settled[1].shape[1]
            maps = asked.map.to(x.device)
            if maps.ndim < x.ndim + 1:
                maps = maps.unsqueeze(2)
            maps = maps.expand(-1, targets, *x.shape[1:])

            def of(forward: Forward) -> list[Tensor]:
                def change(column: int) -> Change:
                    return lambda shown, examples: forward(shown, examples)[:, column]

                return [
                    own(change(t), x, maps[:, t], noise, normalise=metric.normalise, at_once=at_once)
                    for t in range(targets)
                ]

            rows = noise.shape[0] * len(x) * targets if metric.backend == witnesses.OWN else 0  # no fast way is shared
            found = forwarding(run, matrix, rows, of)
        return {"map": torch.stack(found, dim=1)[..., None]}

    @staticmethod
    def _noise(asked: _Shaken, x: Tensor, n: int) -> Tensor:
        """(samples, …) of one photo."""
        source = generator(asked.seed, asked.first + n, _NOISE)
        drawn = torch.randn((asked.metric.samples, *x.shape[1:]), generator=source, dtype=torch.float64, device="cpu")
        low, high = (float(each) for each in x[n].aminmax())
        return drawn * asked.metric.noise * ((high - low) or 1.0)
