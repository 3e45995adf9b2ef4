"""Captum's ``IntegratedGradients`` and ``NoiseTunnel``, called directly: by default, and at the best internal batch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import islice

import torch
from torch import Tensor, nn

from attribution import Attribution, Inputs, IntegratedGradients, SmoothGrad
from attribution.agreement import Agreement, all_hold
from benchmarks.cases import Case
from benchmarks.clock import timed
from benchmarks.devices import on_host
from benchmarks.peers.peer import Check, Contestant, Peer, answered, largest, own
from benchmarks.rows import ask, subject_of

CHUNKS = (1, 2, 4, 8, 16)
"""Rows per forward that the tuned tier chooses from on the CPU."""

DEVICE_CHUNKS = (8, 16, 32, 64)
"""Likewise on a device."""

SMOKE_CHUNK = 8

OTHER_ROWS = 4
"""How many times the dtype's tolerance is allowed: other numbers of rows take other kernels."""

Ask = Callable[[int | None], Tensor]


@dataclass(frozen=True, kw_only=True)
class _Gradients(Peer):
    name: str = "captum.attr"
    package: str = "captum"

    def enter(self, case: Case, device: str, *, sweep: bool) -> Contestant:
        """Tuned: at the best number of rows per forward, in the memory layout of the model and inputs as given."""
        model, inputs = subject_of(case, device)
        assert inputs is not None
        model = own(model)
        answer = self._ask(case, model, inputs)
        if self.tier == "default":
            return Contestant(lambda: answer(None), model)
        chunks = (CHUNKS if on_host(device) else DEVICE_CHUNKS) if sweep else ()
        found = {rows: min(timed(lambda rows=rows: answer(rows), device) for _ in range(2)) for rows in chunks}  # type: ignore[misc]
        best = min(found, key=found.__getitem__) if found else SMOKE_CHUNK
        return replace(Contestant(lambda: answer(best), model), sweep=found)

    def _ask(self, case: Case, model: nn.Module, inputs: Tensor) -> Ask:
        """From the number of rows per forward (``None``: Captum's default) to the raw maps of the case."""
        raise NotImplementedError

    def _checked(self, case: Case, device: str, ours: Attribution, theirs: Attribution) -> Check:
        """Against ours; where that differs, against ours with as many rows per forward as the peer's.

        Other numbers of rows take other kernels. Where the input of a ReLU or of a max-pool is near a tie they take the
        other branch, which changes the gradient by more than rounding.
        """
        compared = f"raw maps, within {OTHER_ROWS} × the dtype's tolerance × max|map|"
        direct = found = _within(ours, theirs)
        for rows in (case.technique.samples, *CHUNKS, *DEVICE_CHUNKS):  # type: ignore[attr-defined]  # of a family that has them
            if all_hold(found):
                break
            found = _within(ask(case, "hooks", case.technique, device, case.score(), rows)(), theirs)
        if found is direct:
            return Check(direct, compared)
        return Check(
            found,
            compared,
            f"{case.model}, {case.technique.name}: off by {largest(direct):.1e} of the maximum, since forwards of "
            "other numbers of rows round otherwise; the maps agree once ours are of as many rows",
        )


def _within(ours: Attribution, theirs: Attribution) -> list[Agreement]:
    found = ours.technique.agreement(ours, theirs)
    allowed = [OTHER_ROWS * a.tolerance for a in found]
    return [replace(a, tolerance=most, holds=a.difference <= most) for a, most in zip(found, allowed, strict=True)]


@dataclass(frozen=True, kw_only=True)
class CaptumIntegratedGradients(_Gradients):
    """One call of ``IntegratedGradients`` for each target, as it takes one at a time."""

    def _ask(self, case: Case, model: nn.Module, inputs: Tensor) -> Ask:
        technique, method = case.technique, import_module("captum.attr").IntegratedGradients(model)
        assert isinstance(technique, IntegratedGradients)
        columns = [list(column) for column in zip(*(case.target() or []), strict=True)]
        manner = {"n_steps": technique.steps, "method": technique.rule}

        def answer(rows: int | None) -> Tensor:
            size = {} if rows is None else {"internal_batch_size": rows}
            maps = [method.attribute(inputs, target=column, **manner, **size) for column in columns]
            return torch.stack(maps, dim=1)

        return answer

    def check(self, case: Case, device: str, answer: Tensor, ours: Attribution) -> Check:
        """The rule by which backends are compared, but for other kernels."""
        return self._checked(case, device, ours, answered(ours, self, "input", answer))


@dataclass(frozen=True, kw_only=True)
class CaptumSmoothGrad(_Gradients):
    """One call of ``NoiseTunnel`` for each statistic.

    Its own noise is that of torch's global generator. So that answers can be compared it adds none (``stdevs=0.0``,
    which it draws and multiplies all the same), and the function that it differentiates adds the technique's.
    """

    def _ask(self, case: Case, model: nn.Module, inputs: Tensor) -> Ask:
        attr, technique = import_module("captum.attr"), case.technique
        assert isinstance(technique, SmoothGrad)
        target = [row[0] for row in case.target() or []]
        kinds = ("smoothgrad", "smoothgrad_sq", "vargrad")

        def answer(rows: int | None) -> Tensor:
            size = {} if rows is None else {"nt_samples_batch_size": rows}
            maps = []
            for kind in kinds:
                draws = technique.draws(Inputs.of(inputs))

                def noisy(x: Tensor, draws: object = draws) -> Tensor:  # of each example all samples, then of the next
                    some = list(islice(draws, len(x) // len(inputs)))  # type: ignore[call-overload]
                    noise = torch.stack([z["input"] for z in some], dim=1).flatten(0, 1)
                    logits: Tensor = model(x + noise)
                    return logits

                tunnel = attr.NoiseTunnel(attr.Saliency(noisy))
                manner = {"nt_type": kind, "nt_samples": technique.samples, "stdevs": 0.0, "abs": False}
                maps.append(tunnel.attribute(inputs, target=target, **manner, **size))
            return torch.stack(maps, dim=1)

        return answer

    def check(self, case: Case, device: str, answer: Tensor, ours: Attribution) -> Check:
        """All three statistics, by the rule by which backends are compared, but for other kernels."""
        keys = [f"{name}: input" for name in case.several]
        raw = {key: map_[:, None] for key, map_ in zip(keys, answer.unbind(1), strict=True)}
        return self._checked(case, device, ours, replace(answered(ours, self, "input", answer), raw=raw))
