"""Whatever the caller's modes, inputs and wrappers are, the answer is the same."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from attribution.attributor import Attributor
from attribution.errors import InputError, ModelError, NonFiniteError
from attribution.result import Attribution
from attribution.scores.classes import ClassScore
from attribution.testing.checks.check import Template, check, raises, require
from attribution.testing.checks.subject import Subject, makes_inputs, needs_inputs, needs_target
from attribution.testing.footprint.guard import guard
from attribution.testing.models.awkward import Watch, Wrapped, awkward
from attribution.testing.models.small import small_cnn, small_residual


@contextmanager
def _autocast(device: torch.device) -> Iterator[None]:
    """Of the host and of the device."""
    with torch.autocast("cpu", torch.bfloat16), torch.autocast(device.type, torch.bfloat16):
        yield


_MODES: dict[str, Callable[[Subject], AbstractContextManager[object]]] = {
    "no_grad": lambda subject: torch.no_grad(),
    "inference_mode": lambda subject: torch.inference_mode(),
    "autocast": lambda subject: _autocast(subject.device),
}


def _same(subject: Subject, found: Attribution, model: nn.Module, case: str, *, exact: bool = True) -> None:
    difference = subject.difference(subject.ask(model), found, exact=exact)
    require(not difference, f"{case}: {difference}", "the map of an eval-mode model on plain inputs")


def _mode_does_not_matter(subject: Subject, *, mode: str) -> None:
    model, inputs = subject.on(small_residual()), subject.noise()
    with _MODES[mode](subject), guard(model, inputs):
        found = subject.ask(model, inputs)
    _same(subject, found, model, f"called under {mode}")
    with _MODES[mode](subject):
        own = subject.noise()
        found = subject.ask(model, own)
    _same(subject, found, model, f"inputs made under {mode}")


@check("Modes")
def check_train_mode_does_not_matter(subject: Subject) -> None:
    """Dropout is off and batch norm uses its statistics, also where only one part is in train mode."""
    model, expected = subject.on(awkward("in-place ReLU")), subject.on(awkward("in-place ReLU"))
    _same(subject, subject.ask(model.train()), expected, "a model in train mode")
    model.eval().get_submodule("dropout").train()
    _same(subject, subject.ask(model), expected, "a model with its dropout in train mode")


@check("Gradients")
def check_frozen_parameters_do_not_matter(subject: Subject) -> None:
    """All of them, or some."""
    model, expected = subject.on(small_residual()), subject.on(small_residual())
    _same(subject, subject.ask(model.requires_grad_(False)), expected, "frozen parameters")
    model.get_submodule("head").requires_grad_(True)
    _same(subject, subject.ask(model), expected, "a frozen trunk")


@check("Inputs: never changed", needs_inputs)
def check_inputs_that_require_grad_do_not_matter(subject: Subject) -> None:
    """A leaf, a non-leaf, one with a ``.grad``."""
    model = subject.on(small_residual())
    leaf = subject.noise().requires_grad_()
    leaf.grad = torch.ones_like(leaf)
    for inputs in (leaf, subject.noise().requires_grad_() * 1.0):
        with guard(model, inputs):
            found = subject.ask(model, inputs)
        _same(subject, found, model, "inputs that require gradients")


@check("Inputs: form", needs_inputs)
def check_memory_format_does_not_matter(subject: Subject) -> None:
    """channels_last, transposed, expanded and sliced inputs; a channels_last model."""
    model = subject.on(small_residual())
    wide = torch.cat([subject.noise(), subject.noise(seed=1)], dim=3)
    shown = {
        "channels_last inputs": subject.noise().contiguous(memory_format=torch.channels_last),
        "transposed inputs": subject.noise().transpose(2, 3).contiguous().transpose(2, 3),
        "sliced inputs": wide[..., : subject.noise().shape[3]],
    }
    for case, inputs in shown.items():
        _same(subject, subject.ask(model, inputs), model, case, exact=False)
    expanded = subject.noise(1).expand(2, -1, -1, -1)
    difference = subject.difference(subject.ask(model, expanded), subject.ask(model, expanded.contiguous()))
    require(not difference, f"expanded inputs: {difference}", "the map of contiguous inputs")
    last = subject.on(small_residual()).to(memory_format=torch.channels_last)
    _same(subject, subject.ask(last), model, "a channels_last model", exact=False)


@check("Maps: device and dtype")
def check_float64_agrees_with_float32(subject: Subject) -> None:
    """A wrong formula differs by more than rounding."""
    double = subject.ask(subject.on(small_residual(dtype=torch.float64)), subject.noise(dtype=torch.float64))
    single = subject.ask(subject.on(small_residual()), subject.noise())
    for key, map_ in double.raw.items():
        scale = max(map_.abs().max().item(), 1.0 if double.scores is None else double.scores.abs().max().item())
        error = (map_ - single.raw[key].double()).abs().max().item()
        # Several steps of gradient ascent, or of anything that iterates, spread rounding further than one forward.
        limit = 1e-4 if subject.technique.kind != "image" else 0.1
        require(error <= limit * scale, f"float32 off by {error:.3g} in {key!r}", f"at most {limit:g} of {scale:.3g}")


@check("Models: what is taken")
def check_wrapped_models_are_unwrapped(subject: Subject) -> None:
    """``DataParallel`` around the same network."""
    model = subject.on(small_residual())
    _same(subject, subject.ask(nn.DataParallel(model)), model, "a DataParallel model")


@check("Models: what is taken", needs_target)
def check_logits_inside_a_dict_or_tuple(subject: Subject) -> None:
    """``ClassScore(output=…)`` names them; ``logits`` are found alone, else a `ModelError` tells what was returned."""
    model = Wrapped(subject.on(small_cnn()), form="tuple")
    text = raises(ModelError, lambda: subject.ask(model), "a model that returns a tuple")
    require("tuple" in text and "output" in text, f"the text {text!r}", "'tuple', and ClassScore(output=…)")
    for form, item in (("dict", None), ("dict", "logits"), ("tuple", 1)):
        found = subject.ask(Wrapped(subject.on(small_cnn()), form=form), target=ClassScore(1, output=item))
        _same(subject, found, subject.on(small_cnn()), f"logits in a {form}", exact=False)


@check("Untouched model")
def check_the_users_hooks_count(subject: Subject) -> None:
    """A hook that rewrites an output takes part in what is explained, and stays."""
    model, doubled = subject.on(small_cnn()), subject.on(small_cnn())
    handle = model.get_submodule("stem").register_forward_hook(lambda module, args, output: 2 * output)
    conv = doubled.get_submodule("stem")
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.mul_(2)
    with guard(model):
        found = subject.ask(model)
    _same(subject, found, doubled, "a hook that doubles the stem", exact=False)
    handle.remove()
    _same(subject, subject.ask(model), subject.on(small_cnn()), "the hook removed")


@check("Inputs: form", needs_inputs)
def check_wrong_inputs_are_refused_before_any_work(subject: Subject) -> None:
    """Typed errors and no forward."""
    watch = Watch()
    model = subject.on(awkward("in-place ReLU", watch=watch))
    spoilt = subject.noise()
    spoilt[1, 2, 3, 4] = float("nan")
    wrong: dict[str, tuple[type[Exception], object]] = {
        "one image without batch axis": (InputError, subject.noise()[0]),
        "integers": (InputError, torch.ones(1, 3, 17, 23, dtype=torch.int64)),
        "another dtype": (InputError, subject.noise(dtype=torch.float64)),
        "an empty batch": (InputError, subject.noise()[:0]),
        "a numpy array": (InputError, np.zeros((1, 3, 17, 23), dtype=np.float32)),
        "nothing": (InputError, None),
        "another device": (InputError, subject.noise().to("meta")),
        "NaN": (NonFiniteError, spoilt),
        "infinity": (NonFiniteError, subject.noise() / 0),
    }
    attributor: Attributor[object] = subject.attributor(model)  # type: ignore[type-var]
    for case, (kind, inputs) in wrong.items():
        raises(kind, partial(attributor.attribute, inputs, None), case)
    require(not watch.forwards, f"{watch.forwards} forwards", "none")


@check("Inputs: filter visualisation has none", makes_inputs)
def check_inputs_are_refused_where_none_are_taken(subject: Subject) -> None:
    """They could only be a misunderstanding."""
    raises(InputError, lambda: subject.attributor(subject.on(small_cnn())).attribute(subject.noise()), "inputs")


@check("Models: what is taken", needs_inputs)
def check_a_model_that_fails_is_a_model_error(subject: Subject) -> None:
    """Two channels for a network of three."""
    raises(ModelError, lambda: subject.ask(subject.on(small_cnn()), subject.noise()[:, :2]), "images of two channels")


@check("Maps: finite")
def check_nan_is_never_hidden(subject: Subject) -> None:
    """A NaN weight gives a `NonFiniteError`, or a result that marks itself as not ok."""
    model = subject.on(small_cnn())
    with torch.no_grad():
        next(model.get_submodule("body").parameters())[0, 0] = float("nan")
    try:
        result = subject.ask(model)
    except NonFiniteError:
        return
    status: Tensor = result.extras.get("status", torch.zeros(1))
    require(bool((status != 0).any()), "a map that looks healthy from a network with NaN weights", "NonFiniteError")


def _check_mode(mode: str) -> Template:
    body = partial(_mode_does_not_matter, mode=mode)
    return Template(f"the_callers_{mode}_does_not_matter", "Modes", body, lambda subject: True)


CHECKS: tuple[Template, ...] = (
    *map(_check_mode, _MODES),
    check_train_mode_does_not_matter,
    check_frozen_parameters_do_not_matter,
    check_inputs_that_require_grad_do_not_matter,
    check_memory_format_does_not_matter,
    check_float64_agrees_with_float32,
    check_wrapped_models_are_unwrapped,
    check_logits_inside_a_dict_or_tuple,
    check_the_users_hooks_count,
    check_wrong_inputs_are_refused_before_any_work,
    check_inputs_are_refused_where_none_are_taken,
    check_a_model_that_fails_is_a_model_error,
    check_nan_is_never_hidden,
)
