"""Our own dense engine as a contestant: what the incremental one saves, or costs where it cannot save."""

from dataclasses import dataclass

from torch import Tensor

from attribution import Attribution, Execution, Occlusion, registry
from benchmarks.cases import Case
from benchmarks.peers.peer import Check, Contestant, Peer, Tier, answered
from benchmarks.rows import subject_of


@dataclass(frozen=True, kw_only=True)
class DenseEngine(Peer):
    """``Execution(incremental=False)``: one full forward per window."""

    name: str = "dense engine"
    package: str = "torch-attribution"
    tier: Tier = "default"

    def enter(self, case: Case, device: str, *, sweep: bool) -> Contestant:
        """The raw map (N, T, H, W)."""
        model, inputs = subject_of(case, device)
        assert isinstance(case.technique, Occlusion)
        attributor = registry.get(case.technique, "hooks")(model, case.technique, Execution(incremental=False))

        def call() -> Tensor:
            return attributor.attribute(inputs, case.score()).raw["input"]

        return Contestant(call, model)

    def check(self, case: Case, device: str, answer: Tensor, ours: Attribution) -> Check:
        """The rule by which backends are compared."""
        found = case.technique.agreement(ours, answered(ours, self, "input", answer))
        return Check(found, "maps, within the dtype's tolerance × (max|map| + max|score|)")
