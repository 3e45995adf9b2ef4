"""What every attributor is, and what every answer looks like."""

import gc
import inspect
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from attribution.attributor import Attributor
from attribution.errors import InputError, ModelError
from attribution.result import Attribution
from attribution.testing.checks.check import Template, check, raises, require
from attribution.testing.checks.subject import CLASSES, IMAGES, SIZE, Subject, needs_target
from attribution.testing.footprint.guard import guard
from attribution.testing.models.awkward import Planned, Watch, awkward
from attribution.testing.models.small import small_cnn


@check("Attributors: what they are")
def check_class_names_its_question(subject: Subject) -> None:
    """A concrete subclass with a technique and a backend."""
    cls: Any = subject.cls
    require(isinstance(cls, type) and issubclass(cls, Attributor), f"{cls!r}", "a subclass of attribution.Attributor")
    missing = sorted(cls.__abstractmethods__)
    require(not missing, f"{cls.__name__} without {', '.join(missing)}", "every abstract method implemented")
    require(isinstance(cls.backend, str) and cls.backend.isidentifier(), f"backend {cls.backend!r}", "a plain name")
    require(
        isinstance(subject.technique, cls.technique_type),
        f"technique_type {cls.technique_type.__name__}",
        f"the class of {type(subject.technique).__name__}",
    )


@check("Attributors: what they are")
def check_class_adds_no_parameters(subject: Subject) -> None:
    """What is computed belongs to the technique, how to Execution."""
    found, own = (str(inspect.signature(cls)) for cls in (subject.cls, Attributor))
    require(found == own, f"the constructor {found}", f"{own}; parameters are fields of the technique or of Execution")
    final = subject.cls.attribute is Attributor.attribute
    require(final, "an attribute() of its own", "compute() only, so that every backend checks and isolates alike")


@check("Attributors: what they are")
def check_constructor_only_stores(subject: Subject) -> None:
    """No forward, no change, no hook while idle."""
    watch = Watch()
    model = subject.on(awkward("in-place ReLU", watch=watch)).train()
    watch.plan(Planned("a forward"))
    with guard(model):
        attributor = subject.attributor(model)
        require(attributor.model is model, "another model on the attributor", "the user's")
        require(attributor.technique is subject.technique, "another technique on the attributor", "the user's")
    require(not watch.forwards, f"{watch.forwards} forwards in the constructor", "none")


@check("Attributors: what they are")
def check_calls_leave_no_state(subject: Subject) -> None:
    """An attributor may be asked again and again."""
    attributor = subject.attributor(subject.on(small_cnn()))
    first = subject.put(attributor, subject.noise(), 1)
    before = dict(vars(attributor))
    subject.put(attributor, subject.noise(3, seed=1), 0)
    again = subject.put(attributor, subject.noise(), 1)
    require(vars(attributor) == before, f"attributes {sorted(vars(attributor))} that calls change", "none")
    difference = subject.difference(first, again, exact=True)
    require(not difference, f"another answer after another question: {difference}", "the same bits")


@check("Attributors: what they are")
def check_other_techniques_are_refused(subject: Subject) -> None:
    """Asked for what it does not compute."""
    raises(InputError, lambda: subject.cls(subject.on(small_cnn()), object()), "a technique of another class")
    raises(ModelError, lambda: subject.cls(lambda x: x, subject.technique), "a model that is no module")  # type: ignore[arg-type]


@check("Maps: shapes")
def check_maps_have_the_shape_of_their_kind(subject: Subject) -> None:
    """By kind; the keys are layers, or "input"."""
    inputs = subject.noise()
    result = subject.ask(subject.on(small_cnn()), inputs, [[1, 3, 0]] * IMAGES)
    require(len(result.maps) > 0, "no maps", "at least one")
    for key, map_ in result.maps.items():
        told = f"map {key!r} of shape {tuple(map_.shape)}"
        known = key == "input" or not subject.layers or key in subject.layers
        require(known, f"a map called {key!r}", f"'input' or one of {subject.layers}")
        if result.technique.kind == "heatmap":
            columns = 3 if subject.technique.needs_target else map_.shape[1]
            require(
                map_.ndim in (4, 5) and map_.shape[:2] == (IMAGES, columns),
                told,
                f"({IMAGES}, {columns}, height, width), with channels before the height or without",
            )
            require(key != "input" or map_.shape[-2:] == SIZE, told, f"the inputs' height and width {SIZE}")
        elif result.technique.kind == "activation":
            require(map_.ndim >= 2 and len(map_) == IMAGES, told, f"{IMAGES} images first")
        else:
            require(map_.ndim == 4, told, "pictures (K, C, H, W)")
    lengths = {len(map_) for map_ in result.raw.values()}
    require(len(lengths) == 1, f"raw maps with first axes {sorted(lengths)}", "one and the same number of images")


@check("Maps: device and dtype")
def check_maps_have_the_inputs_dtype_and_device(subject: Subject) -> None:
    """float32 in, float32 out; where the model is."""
    for dtype in (torch.float32, torch.float64):
        result = subject.ask(subject.on(small_cnn(dtype=dtype)), subject.noise(dtype=dtype))
        for key, map_ in result.maps.items():
            require(map_.dtype == dtype, f"map {key!r} in {map_.dtype}", f"the inputs' {dtype}")
            require(map_.device == subject.device, f"map {key!r} on {map_.device}", f"the model's {subject.device}")


@check("Maps: device and dtype")
def check_nothing_keeps_a_graph(subject: Subject) -> None:
    """Maps, raw maps, scores and extras are plain tensors."""
    for key, tensor in tensors(subject.ask(subject.on(small_cnn()))).items():
        graph = tensor.requires_grad or tensor.grad_fn is not None
        require(not graph, f"{key} with a graph", "detached tensors; a graph keeps all activations alive")
        require(not tensor.is_inference(), f"{key} as an inference tensor", "a tensor that can be computed with")


@check("Maps: device and dtype")
def check_activations_die_with_the_call(subject: Subject) -> None:
    """Nothing the network computed on the way is kept alive by a result."""
    seen: list[weakref.ref[Tensor]] = []

    class Witness(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out = x * 1.0
            seen.append(weakref.ref(out))
            return out

    model = subject.on(small_cnn())
    model._modules["stem_relu"] = nn.Sequential(Witness(), model.get_submodule("stem_relu"))
    result = subject.ask(model)
    gc.collect()
    alive = sum(reference() is not None for reference in seen)
    require(not alive, f"{alive} of {len(seen)} inner tensors alive beside {result!r}", "none")


@check("Maps: own memory")
def check_maps_own_their_memory(subject: Subject) -> None:
    """Writing into a map reaches neither the model nor the inputs nor another map."""
    model, inputs = subject.on(small_cnn()), subject.noise()
    result = subject.ask(model, inputs)
    owned = {x.untyped_storage().data_ptr() for x in (inputs, *model.parameters(), *model.buffers())}
    for key, map_ in result.maps.items():
        require(
            map_.untyped_storage().data_ptr() not in owned, f"map {key!r} in the user's memory", "memory of its own"
        )


@check("Maps: finite")
def check_maps_are_finite_and_not_zero(subject: Subject) -> None:
    """The small models give every technique something to show."""
    for key, map_ in subject.ask(subject.on(small_cnn())).raw.items():
        require(bool(map_.isfinite().all()), f"NaN or infinity in map {key!r}", "finite values")
        require(bool(map_.any()), f"map {key!r} zero everywhere", "values")


@check("Maps: raw values")
def check_maps_are_not_scaled_for_the_eye(subject: Subject) -> None:
    """Not every image's map reaches from exactly 0, or −1, to exactly 1."""
    result = subject.ask(subject.on(small_cnn()), subject.noise(3), "all" if subject.technique.needs_target else None)
    for key, map_ in result.raw.items():
        planes = map_.flatten(2).flatten(0, 1) if subject.technique.needs_target and map_.ndim > 2 else map_.flatten(1)
        for name, rows in (("plane", planes), ("image", map_.flatten(1)), ("answer", map_.reshape(1, -1))):
            top = rows.abs().amax(dim=1)
            scaled = bool(((top - 1).abs() < 1e-6).all())
            require(
                not scaled,
                f"every {name} of map {key!r} with the largest value 1",
                "raw values in the technique's unit",
            )


@check("Maps: finite", needs_target)
def check_target_and_scores_are_finite_tensors(subject: Subject) -> None:
    """(N, T) int64 and (N, T) floats."""
    result = subject.ask(subject.on(small_cnn()), subject.noise(), "all")
    for name, tensor in (("target", result.target), ("scores", result.scores)):
        shape = None if tensor is None else tuple(tensor.shape)
        require(shape == (IMAGES, CLASSES), f"{name} of shape {shape}", f"{(IMAGES, CLASSES)}")
    require(result.target is not None and result.target.dtype == torch.int64, "target of another dtype", "int64")
    require(result.scores is not None and bool(result.scores.isfinite().all()), "NaN among the scores", "finite scores")


def tensors(result: Attribution) -> dict[str, Tensor]:
    """Every tensor of an answer, by a name."""
    found = {f"map {key!r}": map_ for key, map_ in result.maps.items()}
    found |= {f"raw map {key!r}": map_ for key, map_ in result.raw.items()}
    found |= {f"extra {key!r}": extra for key, extra in result.extras.items()}
    return found | {name: t for name, t in (("target", result.target), ("scores", result.scores)) if t is not None}


CHECKS: tuple[Template, ...] = (
    check_class_names_its_question,
    check_class_adds_no_parameters,
    check_constructor_only_stores,
    check_calls_leave_no_state,
    check_other_techniques_are_refused,
    check_maps_have_the_shape_of_their_kind,
    check_maps_have_the_inputs_dtype_and_device,
    check_nothing_keeps_a_graph,
    check_activations_die_with_the_call,
    check_maps_own_their_memory,
    check_maps_are_finite_and_not_zero,
    check_maps_are_not_scaled_for_the_eye,
    check_target_and_scores_are_finite_tensors,
)
