"""What ``flowkit doctor --audit`` looks at: every run of a store, and what became of messages."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowkit.store.protocol import Store
    from flowkit.store.views import Queries

PAGE = 100  # runs in one look
TOLD = 100  # problems that are told in full
ANNOUNCED_WITHIN = 60.0  # seconds after the end of a run: the relay takes ten, while the broker is there


@dataclass
class Audit:
    """What was found. ``problems`` are (run, sentence)."""

    runs: Counter[str] = field(default_factory=Counter)  # by status
    tasks: int = 0
    dead: Counter[str] = field(default_factory=Counter)  # letters by reason
    wrong: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)  # the first of them

    def line(self) -> str:
        """All of it in a line."""
        runs = ", ".join(f"{count:,} {status}" for status, count in sorted(self.runs.items())) or "no runs"
        dead = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.dead.items())) or "none"
        return f"{runs}; {self.tasks:,} tasks; dead letters: {dead}; {self.wrong:,} problems"


async def audit(store: Store, *, since: float | None, progress: Callable[[int], None]) -> Audit:
    """Look at every run that began since then, each as it is at one moment.

    Args:
        store: open.
        since: Unix seconds; None: all.
        progress: told how many runs were looked at, every page.
    """
    found = Audit()
    secret = bytes.fromhex(await store.query(_secret))
    found.dead.update(await store.query(lambda queries: queries.dead_counts()))
    after: str | None = None
    while True:
        after = await store.query(lambda queries, after=after: _page(queries, found, secret, since, after))  # type: ignore[misc]
        progress(found.runs.total())
        if after is None:
            return found


def _page(queries: Queries, found: Audit, secret: bytes, since: float | None, after: str | None) -> str | None:
    from flowkit.flow.audit import problems

    announced_before = time.time() - ANNOUNCED_WITHIN
    runs, following = queries.runs(limit=PAGE, after=after, since=since)
    for row in runs:
        whole = queries.whole(row.id)
        assert whole is not None, "both looks are in one snapshot"
        found.runs[whole.run.status] += 1
        found.tasks += len(whole.tasks)
        for problem in problems(whole, secret, announced_before=announced_before):
            found.wrong += 1
            if len(found.problems) < TOLD:
                found.problems.append((row.id, problem))
    return following


def _secret(queries: Queries) -> str:
    secret = queries.meta("secret")
    assert secret is not None, "the store makes its secret when it is created"
    return secret
