"""Interrupts at chosen places: they arrive, are told where somebody swallows them, and leave no tracer behind."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from attribution.testing.footprint.interruption import Place, Swallowed, interrupted, places

DONE: list[str] = []


def work() -> None:
    DONE.append("begun")
    try:
        for number in range(3):
            text = str(number)
            DONE.append(text)
    finally:
        DONE.append("tidied")


def swallowing() -> None:
    with suppress(BaseException):
        work()


def dropping() -> None:
    """A generator that dies by itself: Python tells, and goes on."""

    def numbers() -> Iterator[int]:
        try:
            yield 1
        finally:
            DONE.append("dropped")

    next(numbers())


def place(act: Callable[[], None], text: str) -> Place:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    here = [p for p in places(act) if p.event == "line" and p.code.co_filename == __file__]
    found = [p for p in here if text in lines[p.line - 1]]
    assert len(found) == 1
    DONE.clear()
    return found[0]


def test_places_are_counted() -> None:
    counted = places(work)
    assert counted[place(work, "str(number)")] == 3
    assert {p.event for p in counted} >= {"call", "line", "return"}


@pytest.mark.parametrize(("number", "done"), [(1, ["begun", "tidied"]), (3, ["begun", "0", "1", "tidied"])])
def test_an_interrupt_arrives_where_it_was_asked_for(number: int, done: list[str]) -> None:
    at, before = place(work, "str(number)"), sys.gettrace()
    assert interrupted(work, at, number)
    assert (done, before) == (DONE, sys.gettrace())


def test_a_place_that_is_not_reached_interrupts_nothing() -> None:
    assert not interrupted(work, place(work, "str(number)"), 4)
    assert DONE == ["begun", "0", "1", "2", "tidied"]


def test_an_interrupt_that_is_swallowed_is_told() -> None:
    with pytest.raises(Swallowed, match=r"test_interruption, line \d+ \(line in work\) was swallowed"):
        interrupted(swallowing, place(swallowing, "str(number)"))


def test_what_python_itself_drops_is_nobodys_fault() -> None:
    assert not interrupted(dropping, place(dropping, 'append("dropped")'))
