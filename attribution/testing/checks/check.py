"""``Check``: one property of one attributor, and the words in which it fails."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from attribution.errors import AttributionError, ModelError
from attribution.testing.checks.subject import Subject

T = TypeVar("T")
Body = Callable[[Subject], None]
PAGE = "docs/conventions.md"
"""Where the rules are, in the project's documentation."""


class CheckFailure(AttributionError, AssertionError):
    """An attributor breaks a rule: what was found, what was expected, and the rule."""


class _Refuted(Exception):
    pass


def require(holds: object, found: str, expected: str) -> None:
    """Inside a check: both texts complete a sentence, ``found …; expected …``."""
    if not holds:
        raise _Refuted(f"found {found}; expected {expected}")


def raises(kinds: type[BaseException] | tuple[type[BaseException], ...], act: Callable[[], object], case: str) -> str:
    """Inside a check: the text of the error that ``act`` must raise."""
    names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
    try:
        act()
    except kinds as error:
        text = str(error)
        require(len(text) > 15, f"{case}: the text {text!r}", "what was found, what was expected, how to mend it")
        return text
    except Exception as error:
        raise _Refuted(f"found {case}: {type(error).__name__}: {_line(error)}; expected {names}") from error
    raise _Refuted(f"found {case}: no error; expected {names}")


def unless_refused(act: Callable[[], T]) -> T | None:
    """Inside a check of many models: what ``act`` gives, or ``None`` where a `ModelError` says why it cannot."""
    try:
        return act()
    except ModelError:
        return None


@dataclass(frozen=True)
class Template:
    """A property that any attributor can be held to.

    Attributes:
        name: Unique among all templates.
        rule: The heading in `PAGE` that it defends.
        body: Raises where the property does not hold.
        applies: Whether it means anything for an attributor.
    """

    name: str
    rule: str
    body: Body
    applies: Callable[[Subject], bool]


def always(subject: Subject) -> bool:
    """Applies to every attributor."""
    return True


def check(rule: str, applies: Callable[[Subject], bool] = always) -> Callable[[Body], Template]:
    """Make a `Template` of a function called ``check_…``."""
    return lambda body: Template(body.__name__.removeprefix("check_"), rule, body, applies)


@dataclass(frozen=True)
class Check:
    """One property of one attributor; call it.

    Attributes:
        template: The property.
        subject: Whose.
    """

    template: Template
    subject: Subject

    @property
    def name(self) -> str:
        """The key of ``expected_failures``."""
        return self.template.name

    @property
    def rule(self) -> str:
        """The rule it defends, as a link into the documentation."""
        anchor = re.sub(r"[^\w\- ]", "", self.template.rule.lower()).replace(" ", "-")
        return f"{PAGE}#{anchor}"

    def __call__(self) -> None:
        """Hold the attributor to the property.

        Raises:
            CheckFailure: It does not hold, or the attributor raised what it should not.
        """
        try:
            self.template.body(self.subject)
        except _Refuted as refuted:
            raise self._failure(str(refuted)) from refuted.__cause__
        except Exception as error:
            raise self._failure(f"found {type(error).__name__}: {_line(error)}; expected no error") from error

    def _failure(self, text: str) -> CheckFailure:
        return CheckFailure(f"{self.subject.name}: {self.name}: {text}. Rule: {self.rule}")

    def __repr__(self) -> str:
        return f"<Check {self.name} of {self.subject.name}>"


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()] or ["no text"]
    return " ".join(lines[:3])
