"""What the pages show is what happens: every fenced block of the README and the tutorial is executed."""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from flowkit.flow.edges.happened import Step, happened
from flowkit.flow.edges.mermaid import mermaid
from tests.repository.fences import Fence, Shell, fences

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("broker/*.md"), *ROOT.glob("docs/**/*.md")])
README = fences(ROOT / "README.md")
TUTORIAL = ROOT / "docs/tutorial/first-workflow.md"


@pytest.mark.parametrize("fence", [one for page in PAGES for one in fences(page) if one.language == "python"], ids=str)
def test_every_block_of_python_compiles(fence: Fence) -> None:
    compile(fence.text, str(fence), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_readme_shows_the_sample_as_it_is() -> None:
    shown = next(fence.text for fence in README if fence.language == "python")
    comment, _, code = shown.partition("\n")
    assert code == (ROOT / comment.removeprefix("# ")).read_text()


def test_every_target_of_make_that_is_shown_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for fence in fences(page):
            for target in re.findall(r"^(?:\$ )?make ([a-z-]+)", fence.text, re.MULTILINE):
                assert target in targets, f"{fence}: make {target}"


def test_the_readme_on_rabbitmq(rabbitmq_url: str, namespace: str, tmp_path: Path) -> None:
    """The three terminals, in one namespace of their own."""
    environment = {
        "FLOWKIT_BROKER_URL": rabbitmq_url,
        "FLOWKIT_NAMESPACE": namespace,
        "FLOWKIT_STORE_URL": f"sqlite:///{tmp_path}/flowkit.db",
    }
    with Shell(ROOT, environment) as shell:
        for fence in README:
            if fence.language == "console" and "make " not in fence.text:
                shell.run(fence)


def test_the_tutorial(tmp_path: Path) -> None:
    with Shell(tmp_path, {}) as shell:
        for fence in fences(TUTORIAL):
            if fence.title:
                file = tmp_path / fence.title
                file.parent.mkdir(exist_ok=True)
                file.write_text(fence.text)
            elif fence.language == "console":
                shell.run(fence)


def test_the_check_of_a_workflow(tmp_path: Path) -> None:
    with Shell(tmp_path, {}) as shell:
        for fence in fences(ROOT / "docs/how-to/check-a-workflow.md"):
            if fence.title:
                file = tmp_path / fence.title
                file.parent.mkdir(exist_ok=True)
                file.write_text(fence.text)
            elif fence.language == "console":
                shell.run(fence)


def test_the_tests_of_a_workflow(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "workers", tmp_path / "workers")
    with Shell(tmp_path, {}) as shell:
        for fence in fences(ROOT / "docs/how-to/test-a-workflow.md"):
            if fence.title:
                file = tmp_path / fence.title
                file.parent.mkdir(exist_ok=True)
                file.write_text(fence.text)
            elif fence.language == "console":
                shell.run(fence)


def test_the_drawing_of_a_run_that_is_shown() -> None:
    (shown,) = (one for one in fences(ROOT / "docs/how-to/check-a-workflow.md") if one.language == "mermaid")
    steps = [Step("0", "discover", "succeeded"), Step("0.0.then", "summarize", "succeeded")]
    steps += [Step(f"0.0.{number}", "measure", "succeeded") for number in range(668)]
    drawn = mermaid(happened("census", "succeeded", steps)).splitlines()
    assert shown.text.splitlines() == [line for line in drawn if "class" not in line]


def test_the_worker_and_the_starter_in_plain_amqp(rabbitmq_url: str, namespace: str, tmp_path: Path) -> None:
    """The programs of the how-to, run as they stand but for the namespace."""
    for fence in fences(ROOT / "docs/how-to/another-language.md"):
        name = fence.text.split()[1]  # "# shout.py AMQP-ADDRESS"
        (tmp_path / name).write_text(fence.text.replace('"flowkit.', f'"{namespace}.'))
    environment = {
        "FLOWKIT_BROKER_URL": rabbitmq_url,
        "FLOWKIT_NAMESPACE": namespace,
        "FLOWKIT_STORE_URL": f"sqlite:///{tmp_path}/flowkit.db",
    }
    with Shell(tmp_path, environment) as shell:
        shell.start("flowkit coordinator")
        worker = shell.start(f"{sys.executable} shout.py {rabbitmq_url}")
        # The same id and inputs from FlowKit's side: whoever comes first starts it, the other one finds it there.
        first = shell.call("flowkit start shout --id greeting -F text=hello --wait")
        assert json.loads(first.stdout.partition("\n")[2]) == {"text": "HELLO"}
        run_id = shell.call(f"{sys.executable} begin.py {rabbitmq_url} 'from elsewhere'").stdout.strip()
        again = shell.call(f"flowkit start shout --id {run_id} -F 'text=from elsewhere' --wait")
        assert json.loads(again.stdout.partition("\n")[2]) == {"text": "FROM ELSEWHERE"}
        shell.kill(worker)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"
