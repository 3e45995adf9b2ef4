"""Neither the batch nor its size nor the order of questions is part of the question."""

import warnings

import torch

from attribution.isolation.torch_modes import keep_random
from attribution.isolation.undo import undoing
from attribution.running.execution import Execution
from attribution.testing.checks.check import Template, check, require
from attribution.testing.checks.subject import Subject, knows_several_layers, needs_inputs, part
from attribution.testing.footprint.guard import guard
from attribution.testing.models.small import small_cnn, small_residual


@check("Agreement: chunks", needs_inputs)
def check_an_image_does_not_depend_on_its_neighbours(subject: Subject) -> None:
    """Alone, or in a batch."""
    model, inputs = subject.on(small_residual()), subject.noise(3)
    together = subject.ask(model, inputs, 1)
    for index in range(len(inputs)):
        alone = subject.ask(model, inputs[index : index + 1], 1)
        difference = subject.difference(part(together, [index]), alone)
        require(not difference, f"image {index} differs in a batch: {difference}", "the map that it has alone")


@check("Agreement: chunks", needs_inputs)
def check_the_order_of_images_is_kept(subject: Subject) -> None:
    """Maps come in the order of the images."""
    model, inputs, order = subject.on(small_cnn()), subject.noise(3), [2, 0, 1]
    straight, mixed = subject.ask(model, inputs, 1), subject.ask(model, inputs[order], 1)
    difference = subject.difference(part(straight, order), mixed)
    require(not difference, f"maps in another order: {difference}", "map n for image n")


@check("Execution changes no question")
def check_batch_size_changes_no_map(subject: Subject) -> None:
    """However many images, windows or filters go into one forward."""
    model, inputs = subject.on(small_cnn()), subject.noise(3)
    whole = subject.ask(model, inputs)
    for size in (1, 2, 64):
        cut = subject.ask(model, inputs, execution=Execution(batch_size=size))
        difference = subject.difference(whole, cut)
        require(not difference, f"batch_size={size}: {difference}", "the map of batch_size=None")


@check("Execution changes no question")
def check_memory_budget_changes_no_map(subject: Subject) -> None:
    """Also the smallest."""
    model = subject.on(small_cnn())
    difference = subject.difference(subject.ask(model), subject.ask(model, execution=Execution(memory_budget=1)))
    require(not difference, f"memory_budget=1: {difference}", "the map of the default budget")


@check("Execution changes no question")
def check_determinism_changes_no_map(subject: Subject) -> None:
    """``deterministic=True`` gives the same answer on a CPU, ``incremental=False`` one within rounding."""
    model = subject.on(small_cnn())
    plain = subject.ask(model)
    with warnings.catch_warnings():  # torch imports a compiler, which sets filters, the first time
        subject.ask(model, execution=Execution(deterministic=True))
    for execution in (Execution(deterministic=True), Execution(incremental=False)):
        with guard(model):
            found = subject.ask(model, execution=execution)
        difference = subject.difference(plain, found)
        require(not difference, f"{execution}: {difference}", "the same map")


@check("Agreement: chunks")
def check_the_same_question_has_the_same_answer(subject: Subject) -> None:
    """Bit by bit, whatever the global random numbers are."""
    model = subject.on(small_residual())
    first = subject.ask(model)
    with undoing() as undo:
        keep_random(undo, [subject.device])
        torch.manual_seed(12345)
        again = subject.ask(model)
    difference = subject.difference(first, again, exact=True)
    require(not difference, f"another answer the second time: {difference}", "the same bits")


@check("Layers: names", knows_several_layers)
def check_the_order_of_layers_changes_no_map(subject: Subject) -> None:
    """Nor does asking for one of them alone."""
    model = subject.on(small_cnn())
    forth, back, alone = (
        subject.ask(model, technique=subject.asking(*layers))
        for layers in (("stem", "body"), ("body", "stem"), ("stem",))
    )
    found = (tuple(forth.maps), tuple(back.maps))
    require(found == (("stem", "body"), ("body", "stem")), f"maps in the order {found}", "the order of the layers")
    difference = subject.difference(forth, back)
    require(not difference, f"layers the other way round: {difference}", "the same maps")
    pair = torch.equal(forth.raw["stem"], alone.raw["stem"]) or torch.allclose(
        forth.raw["stem"], alone.raw["stem"], rtol=1e-5, atol=1e-5 * alone.raw["stem"].abs().max().item()
    )
    require(pair, "another map of 'stem' where 'body' is asked for too", "the map of 'stem' alone")


CHECKS: tuple[Template, ...] = (
    check_an_image_does_not_depend_on_its_neighbours,
    check_the_order_of_images_is_kept,
    check_batch_size_changes_no_map,
    check_memory_budget_changes_no_map,
    check_determinism_changes_no_map,
    check_the_same_question_has_the_same_answer,
    check_the_order_of_layers_changes_no_map,
)
