"""What goes wrong in a simulation: how likely it is, and what happens at each step."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from enum import Enum, auto

from flowkit.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How likely each fault is, from 0 to 1, at each step where it can happen.

    A step is something that a process does to the world: it publishes, receives, acknowledges, declares, commits, runs
    a main.

    Args:
        crash: before or after a step the process is killed (coordinator or worker); another one begins a little later.
        crash_coordinator: the same, of coordinators alone.
        crash_worker: the same, of workers alone.
        lose_confirm: a message arrives, but whoever published it is not told, and publishes it again.
        duplicate: a message arrives twice.
        reorder: messages overtake each other.
        disconnect: a connection is lost and made again: what was not acknowledged comes again.
        wipe: the broker forgets everything.
        lose_commit: the answer to a coordinator's COMMIT is lost; it went through, or it did not.
        store_away: the store cannot be reached by one coordinator for up to 20 seconds; the others reach it.
        store_slow: transactions of one coordinator wait for up to a minute, and none fails; those of the others do not.
        clock: the wall's clock jumps by up to an hour, back or forth.
        most: how many there are at most; then all is well, so that every simulation has an end.
        crash_at: kill whoever takes this step, counted from 1, beside all others: for a test of every single one.
    """

    crash: float = 0
    crash_coordinator: float = 0
    crash_worker: float = 0
    lose_confirm: float = 0
    duplicate: float = 0
    reorder: float = 0
    disconnect: float = 0
    wipe: float = 0
    lose_commit: float = 0
    store_away: float = 0
    store_slow: float = 0
    clock: float = 0
    most: int = 60
    crash_at: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            chance = getattr(self, field.name)
            if field.type == "float" and not 0 <= chance <= 1:
                raise UsageError(f"Faults({field.name}={chance!r}): expected a chance from 0 to 1")

    def __str__(self) -> str:
        told = (f"{field.name}={getattr(self, field.name)!r}" for field in fields(self)
                if getattr(self, field.name) != field.default)  # fmt: skip
        return f"Faults({', '.join(told)})"


ROUGH = Faults(crash=0.01, lose_confirm=0.03, duplicate=0.05, reorder=0.2, disconnect=0.01, wipe=0.003, clock=0.002)
"""Everything at once: more goes wrong in a minute of this than in a year of most clusters."""


class Fault(Enum):
    """What goes wrong at one step."""

    CRASH = auto()
    LOSE_CONFIRM = auto()
    DUPLICATE = auto()
    REORDER = auto()
    DISCONNECT = auto()
    WIPE = auto()
    CLOCK = auto()
    LOSE_COMMIT = auto()
    STORE_AWAY = auto()
    STORE_SLOW = auto()


class Fates:
    """Decides, from one seed, what goes wrong at each step of a simulation; and writes down what happened."""

    def __init__(self, seed: int, faults: Faults) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - the same again for the same seed is what it is for
        self.trace: list[str] = []
        self.steps = 0
        self.happened = 0
        self.wiped = False  # the broker has forgotten something
        self._faults = faults

    def step(self, who: str, what: str, *, role: str, can: frozenset[Fault]) -> Fault | None:
        """What goes wrong at this step, of all that can."""
        self.steps += 1
        fault = Fault.CRASH if self.steps == self._faults.crash_at and Fault.CRASH in can else self._draw(role, can)
        self.trace.append(f"{self.steps} {who}: {what}" + (f" ! {fault.name.lower()}" if fault else ""))
        self.happened += fault is not None
        self.wiped |= fault is Fault.WIPE
        return fault

    def _draw(self, role: str, can: frozenset[Fault]) -> Fault | None:
        if self.happened >= self._faults.most:
            return None
        for fault, chance in self._chances(role):
            # Drawn only where it can happen: a chance of 0 for one fault leaves the others as they were.
            if chance and fault in can and self.chance.random() < chance:
                return fault
        return None

    def _chances(self, role: str) -> tuple[tuple[Fault, float], ...]:
        faults = self._faults
        crash = faults.crash + {"coordinator": faults.crash_coordinator, "worker": faults.crash_worker}.get(role, 0)
        return (
            (Fault.CRASH, crash),
            (Fault.WIPE, faults.wipe),
            (Fault.CLOCK, faults.clock),
            (Fault.DISCONNECT, faults.disconnect),
            (Fault.LOSE_CONFIRM, faults.lose_confirm),
            (Fault.DUPLICATE, faults.duplicate),
            (Fault.REORDER, faults.reorder),
            (Fault.LOSE_COMMIT, faults.lose_commit),
            (Fault.STORE_AWAY, faults.store_away),
            (Fault.STORE_SLOW, faults.store_slow),
        )
