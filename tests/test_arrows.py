"""Who may import whom: the contracts in ``pyproject.toml`` name every room, and an import against the arrows fails."""

import tomllib
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import grimp
import pytest
from importlinter.contracts.layers import LayersContract

ROOT = Path(__file__).parent.parent
PACKAGES = ("attribution", "attribution_hooks", "attribution_captum", "attribution_references")


def settings() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return found


CONTRACTS = [contract for contract in settings()["contracts"] if contract["type"] == "layers"]


@cache
def imports() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)


def kept(contract: dict[str, Any], graph: grimp.ImportGraph) -> bool:
    options = {name: str(value) if isinstance(value, bool) else value for name, value in contract.items()}
    return bool(LayersContract(contract["name"], settings(), options).check(graph, verbose=False).kept)


def rooms(contract: dict[str, Any]) -> list[list[str]]:
    """By layer from the top, as modules."""
    (container,) = contract["containers"]
    return [[f"{container}.{room.strip()}" for room in layer.split("|")] for layer in contract["layers"]]


def against_the_arrows() -> Iterator[Any]:
    for contract in CONTRACTS:
        layers = rooms(contract)
        for above, below in pairwise(layers):
            for room in below:
                yield pytest.param(contract, room, above[0], id=f"{room}-{above[0]}")
        for beside in layers:
            for room, other in pairwise(beside):
                yield pytest.param(contract, room, other, id=f"{room}-{other}")


@pytest.mark.parametrize("contract", [pytest.param(contract, id=contract["name"]) for contract in CONTRACTS])
def test_every_room_is_named_and_the_arrows_are_kept(contract: dict[str, Any]) -> None:
    (container,) = contract["containers"]
    named = {room for layer in rooms(contract) for room in layer}
    assert named == set(imports().find_children(container))
    assert kept(contract, imports())


@pytest.mark.parametrize(("contract", "room", "above"), [*against_the_arrows()])
def test_an_import_against_the_arrows_fails(contract: dict[str, Any], room: str, above: str) -> None:
    graph = deepcopy(imports())
    graph.add_import(importer=room, imported=above)
    assert not kept(contract, graph)


@pytest.mark.parametrize("contract", [pytest.param(contract, id=contract["name"]) for contract in CONTRACTS])
def test_a_room_that_nobody_named_fails(contract: dict[str, Any]) -> None:
    (container,) = contract["containers"]
    graph = deepcopy(imports())
    graph.add_module(f"{container}.unnamed")
    assert not kept(contract, graph)
