"""What cases have in common whose system is set up at a site of its own, once in each round."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks import record
from benchmarks.ground import Ground
from benchmarks.peers.work import Work
from benchmarks.record import Entry
from benchmarks.site import Site
from benchmarks.system import System

WARM = 1_000_000  # number of what is executed before anything is measured


@dataclass
class AtSite:
    """A system at its work.

    Args:
        ground: where the services are.
        system: what is measured.
        work: what it does.
        label: added to its key and title, where one system has several cases.
    """

    ground: Ground
    system: System
    work: Work
    label: str = ""
    _site: Site | None = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """Under which its figures are kept."""
        return f"{self.system.name}{f': {self.label}' if self.label else ''}"

    @property
    def title(self) -> str:
        """What a table calls it."""
        return f"{self.system.title}{f': {self.label}' if self.label else ''}"

    @property
    def guarantees(self) -> str:
        """What its system promises, at this work."""
        alone = self.work.kind in ("nothing", "chatty")  # FlowKit's coordinator is stopped
        said = self.system.guarantees
        return said.replace("every step in a durable history", "no history: the worker alone") if alone else said

    @property
    def site(self) -> Site:
        """Where it is, from ``set_up`` on."""
        assert self._site is not None
        return self._site

    def set_up(self) -> Site:
        """A fresh site."""
        self._site = Site(self.ground, self.system, self.work.kind)
        return self._site

    def executed(self) -> list[Entry]:
        """What was executed for the figures, in the order of its times: all of it, once.

        Raises:
            RuntimeError: something was not executed, so that its time is no figure.
        """
        found = [entry for entry in record.entries(self.site.record) if entry.number < WARM and entry.step]
        wanted = self.work.executions
        wide = self.work.kind == "wide"  # its tasks side by side note the same
        once = len(found) if wide else len({(entry.number, entry.step) for entry in found})
        if once < wanted:
            raise RuntimeError(f"{self.key}: {once} of {wanted} tasks are in the record")
        return found

    def end(self) -> None:
        """Leave nothing behind."""
        if self._site is not None:
            self._site.close()
            self._site = None
