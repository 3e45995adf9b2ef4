"""What a row of a results file says; every committed file is read through this."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmarks.devices import SIMULATED

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class AgreementEntry(_Strict):
    """How a row's answer was held against the others before anything was timed."""

    others: list[str] = Field(alias="with")
    pairs: Count
    degenerate: Count
    scaled: float = Field(ge=0, description="largest difference, as a part of the map's maximum")
    tolerance: float = Field(ge=0, description="what was allowed, on the same scale")
    holds: Literal[True]
    whole: bool = Field(description="on the whole question, or on its stand-in")
    stated: str = Field(default="", description="a known, explained difference to a peer")


class CountsEntry(_Strict):
    """What one warm call did to the model."""

    forwards: Count
    images: Count
    macs: Count
    modules: Count
    parameter_gradients: Count


class RaceEntry(_Strict):
    """Interleaved runs against another contestant; a ratio above 1 means that this row is faster."""

    against: str
    pairs: int = Field(ge=1)
    discarded: Count
    disturbed: bool
    ratio: Seconds
    low: Seconds
    high: Seconds
    seconds: Seconds
    against_seconds: Seconds


class Row(_Strict):
    """One backend's row; times of the whole question are the benchmark's times × ``scale``."""

    version: Literal[1] = Field(alias="schema")
    technique: str
    question: str
    parameters: str
    model: str
    weights: Literal["random", "bundled"]
    batch: int = Field(ge=1)
    pixels: int = Field(ge=1)
    dtype: Literal["float32", "float64", "bfloat16", "float16"]
    device: Literal["cpu", "cuda"]
    backend: str
    distribution: str
    tier: Literal["default", "tuned", "compiled", "floor"]
    engine: str
    agreement: AgreementEntry
    counts: CountsEntry
    windows: int = Field(ge=1)
    targets: Count
    filters: Count
    steps: Count
    scale: float = Field(ge=1)
    first_call_seconds: Seconds
    peak_bytes: Count | None
    sweep: dict[str, Seconds]
    race: RaceEntry | None
    environment: dict[str, str | int | bool]


@dataclass(frozen=True)
class Duel:
    """How many times as fast ``ours`` is as ``other``, with the 95 % interval."""

    ours: str
    other: str
    ratio: float
    low: float
    high: float


class Result(_Strict):
    """A row with its time."""

    row: Row
    group: str
    seconds: Seconds

    @property
    def duel(self) -> "Duel | None":
        """The row's race seen from our side: a peer that was raced against ``hooks`` is the opponent.

        A floor is no opponent: nobody can win against it.
        """
        race = self.row.race
        if race is None or self.row.tier == "floor":
            return None
        if race.against == "hooks":
            name = f"{self.row.backend} ({self.row.tier})"
            return Duel("hooks", name, 1 / race.ratio, 1 / race.high, 1 / race.low)
        return Duel(self.row.backend, race.against, race.ratio, race.low, race.high)

    @property
    def peak_bytes(self) -> int | None:
        """Peak memory; ``None`` where freed memory was not given back before, which hides what a CPU call needs."""
        trimmed = self.row.device == "cuda" or bool(self.row.environment.get("heap_trimmed"))
        return self.row.peak_bytes if trimmed else None


class ResultsFile(BaseModel):
    """One run on one machine."""

    name: str
    machine: dict[str, Any]
    date: str
    results: list[Result]

    def seconds(self, result: Result) -> float:
        """Seconds for the whole question: of its race, or of the one it was the opponent in, else of rounds."""
        if result.row.race:
            return result.row.race.seconds
        races = [other.row.race for other in self.results if other.group == result.group and other.row.race]
        found = [race.against_seconds for race in races if race.against == result.row.backend]
        return found[0] if found else result.seconds * result.row.scale


def read(path: Path) -> ResultsFile:
    """Read and check a file that ``--benchmark-json`` or ``--rows`` (``.jsonl``) wrote.

    Raises:
        ValueError: The file is not such a file, or a row lacks something; says which row and what.
    """
    text = path.read_text()
    if path.suffix == ".jsonl":
        head, *rows = [json.loads(line) for line in text.splitlines()] or [{}]
        data = {**head, "benchmarks": rows}
    else:
        data = json.loads(text)
    results = []
    for benchmark in data.get("benchmarks", []):
        device = benchmark.get("extra_info", {}).get("device")
        if str(device).partition(":")[0] == SIMULATED:
            name = benchmark.get("name")
            raise ValueError(f"{path.name}: {name}: a rehearsal: device {device!r} is simulated, its times say nothing")
        try:
            row = Row.model_validate(benchmark["extra_info"])
        except (ValidationError, KeyError) as error:
            raise ValueError(f"{path.name}: {benchmark.get('name')}: {error}") from error
        results.append(Result(row=row, group=benchmark["group"], seconds=benchmark["stats"]["median"]))
    if not results:
        raise ValueError(f"{path.name} holds no benchmarks; write it with --benchmark-json or --rows")
    return ResultsFile(name=path.stem, machine=data["machine_info"], date=data["datetime"][:10], results=results)
