"""One case between ``hooks`` and a peer: our answer, the peer's, and the row made of both."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

import torch

from benchmarks.cases import Case
from benchmarks.clock import timed
from benchmarks.counters import Counts, count, peak_bytes
from benchmarks.peers.peer import Check, Contestant, Peer
from benchmarks.rows import Answer, Settled, ask, row, subject_of

T = TypeVar("T")

OURS = "hooks"
"""The backend that peers are held against and raced against."""


def ours(case: Case, device: str) -> Settled:
    """The case answered by ``hooks`` alone, on its stand-in where it has one."""
    call = ask(case, OURS, case.timed, device, case.score(case.question.timed_targets))
    attribution, first_call = first(call, device)
    answer = Answer(attribution, Counts(), first_call, None)
    return Settled(case, device, case.question.stand_in is None, {OURS: answer}, {})


def peer_row(
    settled: Settled, peer: Peer, contestant: Contestant, check: Check, first_call: float, *, peak: bool
) -> dict[str, Any]:
    """What a backend's row says, of a peer; see ``benchmarks/schema.py``.

    Args:
        settled: Our answer.
        peer: Who.
        contestant: Warm.
        check: It holds.
        first_call: Seconds of the peer's first call.
        peak: Measure memory, which takes one more call.
    """
    settled.agreements = {(OURS, peer.name): check.agreements}
    found = row(settled, OURS)
    _, counts = count(contestant.model, contestant.eager or contestant.call, warm=lambda: None)
    return found | {
        "backend": peer.name,
        "distribution": peer.distribution,
        "tier": peer.tier,
        "engine": f"{peer.name}: {check.compared}",
        "agreement": found["agreement"] | {"with": [OURS], "stated": check.stated},
        "counts": asdict(counts),
        "scale": contestant.scale,
        "first_call_seconds": first_call,
        "peak_bytes": peak_bytes(contestant.call, settled.device) if peak else None,
        "sweep": {str(chunk): seconds for chunk, seconds in (contestant.sweep or {}).items()},
    }


def first(call: Callable[[], T], device: str) -> tuple[T, float]:
    """A contestant's answer, and how long it took to give the first one."""
    answers: list[T] = []
    seconds = timed(lambda: answers.append(call()), device)
    return answers[0], seconds


def canary(case: Case, device: str) -> Callable[[], object]:
    """A bare forward of one image of the case."""
    model, inputs = subject_of(case, device)
    one = torch.zeros(1, 3, 128, 128, device=device, dtype=getattr(torch, case.dtype)) if inputs is None else inputs[:1]

    def forward() -> None:
        with torch.inference_mode():
            model(one)

    return forward
