"""One row per case and peer: a numeric check against ``hooks`` first, then counts, then a race against it."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from attribution.agreement import all_hold, table
from benchmarks.cases import Case
from benchmarks.clock import race, timed
from benchmarks.conftest import SWEPT, pairs_of
from benchmarks.peers import entries
from benchmarks.peers.bout import OURS, canary, first, ours, peer_row
from benchmarks.peers.peer import Peer
from benchmarks.rows import Settled


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per case and peer that is installed."""
    option = metafunc.config.getoption
    found = entries(option("--size"), option("--device"), option("--technique"), option("--model"))
    names = [f"{case.group} · {peer.name} · {peer.tier}".replace(" · ", "/").replace("×", "x") for case, peer in found]
    metafunc.parametrize(("peer_case", "peer"), found, ids=names)


@pytest.fixture(scope="session")
def ours_by_case() -> dict[str, Settled]:
    """The last case that ``hooks`` answered; its peers' rows follow each other."""
    return {}


@pytest.fixture
def our_side(peer_case: Case, device: str, ours_by_case: dict[str, Settled]) -> Settled:
    """The case, answered by ``hooks`` once."""
    if peer_case.group not in ours_by_case:
        ours_by_case.clear()
        ours_by_case[peer_case.group] = ours(peer_case, device)
    return ours_by_case[peer_case.group]


def test_peer(
    benchmark: BenchmarkFixture, peer_case: Case, peer: Peer, our_side: Settled, device: str, size: str
) -> None:
    contestant = peer.enter(peer_case, device, sweep=size in SWEPT)
    answer, first_call = first(contestant.call, device)
    check = peer.check(peer_case, device, answer, our_side.answers[OURS].attribution)
    if not all_hold(check.agreements):
        pytest.fail(
            f"{peer_case.group}: {peer.name} ({peer.tier}) and {OURS} differ, so nothing is timed\n"
            f"{check.compared}\n{table(check.agreements)}",
            pytrace=False,
        )
    found = peer_row(our_side, peer, contestant, check, first_call, peak=size in SWEPT)
    call, scale = our_side.call(OURS)
    if size in SWEPT:
        call()
    found["race"] = race(
        contestant.call,
        call,
        against=OURS,
        canary=canary(peer_case, device),
        device=device,
        **pairs_of(peer_case, size, timed(contestant.call, device) if size == "device" else first_call),
        scale=contestant.scale,
        other_scale=scale,
    ).as_dict()
    benchmark.group = peer_case.group
    benchmark.extra_info.update(found)
    benchmark.pedantic(lambda: timed(contestant.call, device), rounds=1, iterations=1, warmup_rounds=0)
