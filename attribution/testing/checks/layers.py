"""Layers by name: in-place neighbours, reused modules, tuples, and names that lead nowhere."""

from functools import partial

import torch
from torch import Tensor, nn

from attribution.errors import InputError, LayerError
from attribution.result import Attribution
from attribution.testing.checks.check import Template, check, raises, require
from attribution.testing.checks.subject import Subject, knows_layers, knows_several_layers
from attribution.testing.models.awkward import Watch, awkward
from attribution.testing.models.small import small_cnn


def _twins_agree(subject: Subject, habit: str, *, exact: bool) -> None:
    model, plain = subject.on(awkward(habit)), subject.on(awkward(habit, plain=True))
    with torch.no_grad():
        require(torch.equal(model(subject.noise()), plain(subject.noise())), "twins that differ", "the same function")
    difference = subject.difference(subject.ask(model), subject.ask(plain), exact=exact)
    require(not difference, f"{habit}: {difference}", "the map of the same network without the habit")


@check("Capture")
def check_an_in_place_relu_changes_no_map(subject: Subject) -> None:
    """Bit by bit the map of the network whose ReLUs make new tensors."""
    _twins_agree(subject, "in-place ReLU", exact=True)


@check("Capture")
def check_an_in_place_sum_changes_no_map(subject: Subject) -> None:
    """``out += identity`` in a residual block."""
    _twins_agree(subject, "in-place sum", exact=True)
    if not subject.layers:
        return
    try:
        inner = [
            subject.ask(subject.on(awkward("in-place sum", plain=p)), technique=subject.asking("body.norm"))
            for p in (False, True)
        ]
    except (LayerError, InputError):
        return
    difference = subject.difference(inner[0], inner[1], exact=True)
    require(not difference, f"the norm before the sum: {difference}", "its own output, before the sum")


@check("Inputs: never changed")
def check_a_model_that_writes_its_input_changes_no_map(subject: Subject) -> None:
    """Every forward gets a copy."""
    _twins_agree(subject, "writes its input", exact=False)


@check("Layers: names")
def check_a_reused_module_elsewhere_changes_no_map(subject: Subject) -> None:
    """The network around a layer may run a module twice."""
    _twins_agree(subject, "reused layer", exact=False)


@check("Layers: names", knows_layers)
def check_a_reused_module_needs_a_number(subject: Subject) -> None:
    """Its last run is not taken silently."""
    text = raises(
        LayerError,
        lambda: subject.ask(subject.on(awkward("reused layer")), technique=subject.asking("body.first")),
        "a module that runs twice",
    )
    require("2" in text, f"the text {text!r}", "how often it runs")


@check("Layers: names", knows_layers)
def check_a_numbered_run_is_that_run(subject: Subject) -> None:
    """``name#0`` and ``name#1``, or a `LayerError` where the backend cannot tell them apart."""
    for name, twin in (("body.first#0", "body.first"), ("body.first#1", "body.second")):
        expected = subject.ask(subject.on(awkward("reused layer", plain=True)), technique=subject.asking(twin))
        try:
            found = subject.ask(subject.on(awkward("reused layer")), technique=subject.asking(name))
        except LayerError:
            continue
        same = torch.allclose(_of(found, name), _of(expected, twin), rtol=1e-4, atol=1e-6)
        require(
            same,
            f"{name}: another run's map",
            "the map of the same run in a network of two modules",
        )


@check("Layers: names", knows_layers)
def check_a_tuple_layer_is_refused(subject: Subject) -> None:
    """It says what it gives; a list, dict or None likewise."""
    raises(
        LayerError,
        lambda: subject.ask(subject.on(awkward("tuple layer")), technique=subject.asking("body.pair")),
        "a layer that returns a tuple",
    )


@check("Layers: names", knows_layers)
def check_an_item_of_a_tuple_is_that_item(subject: Subject) -> None:
    """``name[0]``, or a `LayerError` where the backend cannot take it apart."""
    model = subject.on(awkward("tuple layer"))
    expected = subject.ask(model, technique=subject.asking("body.pair.conv"))
    try:
        found = subject.ask(model, technique=subject.asking("body.pair[0]"))
    except LayerError:
        return
    a, b = _of(found, "body.pair[0]"), _of(expected, "body.pair.conv")
    require(a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-6), "another map", "that of the item")


@check("Layers: names", knows_layers)
def check_an_unknown_layer_is_refused_by_name(subject: Subject) -> None:
    """With the nearest names and before anything runs, also where one run or one item of it is asked for."""
    watch = Watch()
    model = subject.on(awkward("in-place ReLU", watch=watch))
    wrong = [("bodi",), ("bodi#1",), ("bodi[0]",)]
    for layers in [*wrong, ("stem", "bodi")] if knows_several_layers(subject) else wrong:
        case = f"layer {layers[-1]!r}"
        text = raises(LayerError, partial(subject.ask, model, technique=subject.asking(*layers)), case)
        require("'body'" in text, f"the text {text!r}", "the nearest name, 'body'")
        require(not watch.forwards, f"{case}: refused after {watch.forwards} forwards", "none")


@check("Layers: names", knows_layers)
def check_a_layer_that_never_runs_is_refused(subject: Subject) -> None:
    """An empty or zero map would be a lie."""
    model = subject.on(awkward("tuple layer"))
    raises(LayerError, lambda: subject.ask(model, technique=subject.asking("body.idle")), "a layer that never runs")


@check("Layers: names", knows_layers)
def check_wrapper_prefixes_are_accepted(subject: Subject) -> None:
    """``module.body`` and ``body`` name the same layer, with and without the wrapper."""
    model = subject.on(small_cnn())
    expected = _of(subject.ask(model, technique=subject.asking("body")), "body")
    for layer, shown in (
        ("module.body", model),
        ("body", nn.DataParallel(model)),
        ("module.body", nn.DataParallel(model)),
    ):
        found = _of(subject.ask(shown, technique=subject.asking(layer)), layer)
        require(torch.equal(found, expected), f"another map for {layer!r}", "that of 'body'")


def _of(result: Attribution, layer: str) -> Tensor:
    """The map of a layer, or of the input where the technique looks at the layer on the way to it."""
    return result.raw[layer] if layer in result.raw else result.raw["input"]


CHECKS: tuple[Template, ...] = (
    check_an_in_place_relu_changes_no_map,
    check_an_in_place_sum_changes_no_map,
    check_a_model_that_writes_its_input_changes_no_map,
    check_a_reused_module_elsewhere_changes_no_map,
    check_a_reused_module_needs_a_number,
    check_a_numbered_run_is_that_run,
    check_a_tuple_layer_is_refused,
    check_an_item_of_a_tuple_is_that_item,
    check_an_unknown_layer_is_refused_by_name,
    check_a_layer_that_never_runs_is_refused,
    check_wrapper_prefixes_are_accepted,
)
