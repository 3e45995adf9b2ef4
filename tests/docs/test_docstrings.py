"""Examples in docstrings run, and every public name says what it is."""

import doctest
import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import attribution
import attribution_captum
import attribution_hooks


def modules() -> list[str]:
    """All modules of the three packages, but not the one that runs the command line when imported."""
    found = []
    for package in (attribution, attribution_hooks, attribution_captum):
        found += [package.__name__]
        found += [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [name for name in found if not name.endswith(".__main__")]


def examples(module: ModuleType) -> list[doctest.DocTest]:
    """The docstrings of a module that hold examples."""
    return [test for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples]


def failures(tests: list[doctest.DocTest]) -> str:
    """What went wrong; empty if nothing did."""
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in tests:
        runner.run(test, out=told.append)
    return "".join(told)


@pytest.mark.parametrize("name", modules())
def test_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip(), f"{name} does not say what it holds"
    assert failures(examples(module)) == ""


def test_there_are_examples() -> None:
    assert len(examples(attribution)) == 1


def test_a_wrong_example_is_caught() -> None:
    module = ModuleType("wrong", ">>> 1 + 1\n3\n")
    assert "Expected:\n    3\nGot:\n    2" in failures(examples(module))


def undocumented(name: str, value: object) -> list[str]:
    """A public function, class or method without a text of its own, by name."""
    text = vars(value).get("__doc__") if inspect.isclass(value) else inspect.getdoc(value)
    # A dataclass without a docstring gets its signature as one.
    found = [name] if not text or text.startswith(f"{name}(") else []
    if inspect.isclass(value):
        fields = getattr(value, "__dataclass_fields__", {})  # a field's default may be a function
        for member, content in vars(value).items():
            content = getattr(content, "__func__", content)
            described = inspect.isfunction(content) or isinstance(content, property)
            if described and not member.startswith("_") and member not in fields:
                found += [f"{name}.{member}"] if not inspect.getdoc(content) else []
    return found


NAMES = {name: getattr(attribution, name) for name in dir(attribution)}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_public_names_are_documented(name: str) -> None:
    assert undocumented(name, NAMES[name]) == []


def test_an_undocumented_name_is_caught() -> None:
    class Silent:
        def speak(self) -> None: ...

    assert undocumented("Silent", Silent) == ["Silent", "Silent.speak"]
