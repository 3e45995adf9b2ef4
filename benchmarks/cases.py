"""Questions asked of models: what is asked × model × batch × dtype, a row each."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from attribution import ClassScore, Technique, registry
from benchmarks.device_questions import DEVICE
from benchmarks.devices import on_host
from benchmarks.models import MODELS, SMALL, Subject
from benchmarks.questions import ALL_CLASSES, QUESTIONS, SLOW_IN_BATCHES, Question, Size


@dataclass(frozen=True)
class Case:
    """A question for one model: a group of rows."""

    question: Question
    model: str
    batch: int
    dtype: str

    @property
    def subject(self) -> Subject:
        """The model's description."""
        return MODELS[self.model]

    @property
    def technique(self) -> Technique:
        """What is asked."""
        return self.question.technique(self.subject)

    @property
    def timed(self) -> Technique:
        """The stand-in, or the question itself."""
        return (self.question.stand_in or self.question.technique)(self.subject)

    @property
    def several(self) -> dict[str, Technique]:
        """All techniques of the call by name, where there are more than one."""
        beside = self.question.beside
        return {} if beside is None else {self.technique.name: self.technique, **beside(self.subject)}

    @property
    def group(self) -> str:
        """The heading under which the backends' rows stand."""
        return f"{self.question.label} · {self.model} · batch {self.batch} · {self.dtype}"

    def target(self, count: int | None = None) -> list[list[int]] | None:
        """``count`` classes (all of the question's by default), the same for each image, or ``None``."""
        if not self.technique.needs_target:
            return None
        step = 1 if self.question.targets == ALL_CLASSES else 131
        asked = range(count or self.question.targets)
        return [[(self.question.first_class + step * t) % self.subject.classes for t in asked]] * self.batch

    def score(self, count: int | None = None) -> ClassScore | None:
        """The same as what our backends are asked about, by the question's kind of score."""
        target = self.target(count)
        return None if target is None else ClassScore(target, of=self.question.of)


def strangers(names: Iterable[str]) -> list[Question]:
    """One question for each technique that no entry above asks about: its own example, on the small model.

    Those that read attention, which the small model has not, are timed by ``benchmarks/attention.py``.
    """
    known = {question.technique(SMALL).name for question in QUESTIONS}
    known |= {name for name, _ in registry.available() if _kind(name).needs_attention}
    only: dict[Size, tuple[str, ...]] = {"smoke": (SMALL.name,), "full": (SMALL.name,)}
    return [
        Question(f"{name}, its example", partial(_example, name=name), pixels=32, models=only, whole=(SMALL.name,))
        for name in sorted(set(names) - known)
    ]


def _kind(name: str) -> type[Technique]:
    kind: type[Technique] = registry.get(name, registry.backends(name)[0]).technique_type
    return kind


def _example(_: Subject, *, name: str) -> Technique:
    return _kind(name).example()


def cases(size: Size, device: str, technique: str | None = None, model: str | None = None) -> list[Case]:
    """Every case of a run, in the order of `QUESTIONS`, or of `DEVICE` for its size.

    Args:
        size: ``"smoke"``, ``"full"``, ``"families"``: one net of every torchvision family, or ``"device"``: `DEVICE`.
        device: As torch names it; large batches are 16 on the CPU and 64 elsewhere.
        technique: Only this one.
        model: A spec: the questions of `benchmarks.own`, asked of it alone.
    """
    found = []
    asked = DEVICE if size == "device" else (*QUESTIONS, *strangers(name for name, _ in registry.available()))
    if model is not None:
        from benchmarks import own

        asked = own.questions(model, size)
    for question in asked:
        for name in question.models.get(size, ()):
            if technique and question.technique(MODELS[name]).name != technique:
                continue
            for batch in question.batches.get(size, (1,)):
                if on_host(device) and name in SLOW_IN_BATCHES and batch > 1:
                    continue
                large = 64 if not on_host(device) and batch == 16 and size != "device" else batch
                dtypes = ("float32",) if on_host(device) else question.dtypes
                found += [Case(question, name, large, dtype) for dtype in dtypes]
    return found
