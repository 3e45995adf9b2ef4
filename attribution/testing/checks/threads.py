"""Several threads on one model, while somebody else runs it too."""

import threading
from functools import partial

import torch
from torch import Tensor

from attribution.result import Attribution
from attribution.testing.checks.check import Template, check, require
from attribution.testing.checks.subject import Subject
from attribution.testing.models.small import small_residual
from attribution.testing.threads import together

_THREADS, _CALLS = 4, 3


@check("Threads")
def check_threads_share_a_model(subject: Subject) -> None:
    """Every thread gets the answer to its own question."""
    model = subject.on(small_residual())
    questions = [subject.noise(1, seed=seed) for seed in range(_THREADS)]
    expected = [subject.ask(model, inputs) for inputs in questions]
    found: list[list[Attribution]] = [[] for _ in questions]

    def work(index: int) -> None:
        found[index].append(subject.ask(model, questions[index]))

    for error in together(*(partial(work, index) for index in range(_THREADS)), rounds=_CALLS):
        raise error
    for index, answers in enumerate(found):
        for answer in answers:
            difference = subject.difference(expected[index], answer)
            require(not difference, f"thread {index}: {difference}", "the map that it has alone")


@check("Threads")
def check_a_foreign_thread_runs_the_model(subject: Subject) -> None:
    """Neither side sees the other."""
    model, inputs, foreign = subject.on(small_residual()), subject.noise(), subject.noise(seed=9)
    expected = subject.ask(model, inputs)
    with torch.no_grad():
        alone = model(foreign)
    done = threading.Event()
    outputs: list[Tensor] = []
    answers: list[Attribution] = []

    def run() -> None:
        with torch.no_grad():
            while not done.is_set() and len(outputs) < 500:
                outputs.append(model(foreign))

    def explain() -> None:
        try:
            answers.extend(subject.ask(model, inputs) for _ in range(_CALLS))
        finally:
            done.set()

    for error in together(run, explain):
        raise error
    wrong = sum(not torch.equal(output, alone) for output in outputs)
    require(not wrong, f"{wrong} of {len(outputs)} outputs of the other thread changed", "none")
    for answer in answers:
        difference = subject.difference(expected, answer)
        require(not difference, f"beside another thread: {difference}", "the map that it has alone")


CHECKS: tuple[Template, ...] = (check_threads_share_a_model, check_a_foreign_thread_runs_the_model)
