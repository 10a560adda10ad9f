"""``flowkit check``: does the data of each edge fit, as far as nodes declare it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from flowkit.cli import options
from flowkit.cli.declared import sources

if TYPE_CHECKING:
    from flowkit.flow.edges.check import Checked

HELP = options.page(
    "Find edges whose data cannot fit.",
    "flowkit check",
    "flowkit check expense",
    "flowkit check --announced --json | jq '.edges[] | select(.verdict == \"cannot\")'",
    after=(
        "It compares what nodes declare by the annotations of main: outputs with inputs, and names with the nodes that "
        "are there. Exit 0, or 1 when something cannot fit or a node file cannot be loaded. What is not declared "
        "is said, and is no error."
    ),
)
MARKS = {"cannot": ("✖", "red"), "doubtful": ("?", "yellow")}


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("check", help=HELP)(check)


def check(
    names: sources.Names = None,
    *,
    nodes: options.Nodes = None,
    announced: sources.Announced = False,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Read, check, print."""
    from flowkit.flow.edges import check as edges

    known, starts = sources.known(names or [], announced=announced, nodes=nodes, store=store)
    reached = known.reached(starts)
    failures = {name: error for name, error in known.failures.items() if name in reached}
    every = edges.check(known.nodes, known.failures, complete=not announced)
    found = [one for one in every if one.edge.source in reached]
    open_ = {name: edges.not_declared(known.nodes[name]) for name in reached if name in known.nodes}
    problems = {name: said for name, said in known.problems.items() if name in reached}
    if as_json:
        from flowkit.cli.render.output import data_json

        data_json(_json(found, {name: str(error) for name, error in failures.items()}, open_, problems))
    else:
        _print(found, list(map(str, failures.values())), open_, problems)
    if failures or any(one.verdict is edges.Verdict.CANNOT for one in found):
        raise typer.Exit(1)


def _print(
    found: list[Checked], failures: list[str], open_: dict[str, list[str]], problems: dict[str, list[str]]
) -> None:
    from flowkit.cli.render.output import data, data_marked, say, table

    def line(verdict: str, text: str) -> None:
        mark, colour = MARKS[verdict]
        data_marked(mark, colour, text)

    for failure in failures:
        line("cannot", failure)
    for verdict in MARKS:
        for one in found:
            if one.verdict == verdict:
                how = " (on error)" if one.edge.kind == "on_error" else ""
                line(verdict, f"{one.edge.source} → {one.edge.target}{how}  {one.text}")
    for name, said in problems.items():
        for problem in said:
            line("doubtful", f"{name}  {problem}")
    rows = [(name, ", ".join(what)) for name, what in sorted(open_.items()) if what]
    if rows:
        data(table(("node", "not declared"), rows))
    say(_sum(found, failures, open_))


def _sum(found: list[Checked], failures: list[str], open_: dict[str, list[str]]) -> str:
    if not open_ and not failures:
        return "No nodes: flowkit new NAME, or flowkit worker --node NAME for --announced"
    counts = {verdict: sum(one.verdict == verdict for one in found) for verdict in ("fits", "unknown", *MARKS)}
    own = sum(one.verdict == "unknown" and one.edge.kind == "own" for one in found)
    parts = [
        f"{counts['fits']:,} fit" if counts["fits"] else "",
        f"{own:,} with inputs of their own" if own else "",
        f"{counts['unknown'] - own:,} not declared" if counts["unknown"] > own else "",
        f"{counts['doubtful']:,} doubtful" if counts["doubtful"] else "",
        f"{counts['cannot']:,} cannot fit" if counts["cannot"] else "nothing that cannot fit",
        f"{_many(len(failures), 'file')} cannot be loaded" if failures else "",
    ]
    return f"{_many(len(open_), 'node')}, {_many(len(found), 'edge')}: {', '.join(filter(None, parts))}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _json(
    found: list[Checked], failures: dict[str, str], open_: dict[str, list[str]], problems: dict[str, list[str]]
) -> dict[str, Any]:
    return {
        "v": 1,
        "edges": [
            {
                "from": one.edge.source,
                "to": one.edge.target,
                "kind": one.edge.kind,
                "verdict": one.verdict,
                "field": one.field or None,
                "sent": one.sent or None,
                "taken": one.taken or None,
                "text": one.text,
            }
            for one in found
        ],
        "nodes": [
            {"node": name, "not_declared": what, "problems": problems.get(name, [])} for name, what in open_.items()
        ],
        "failures": [{"node": name, "text": text} for name, text in failures.items()],
    }
