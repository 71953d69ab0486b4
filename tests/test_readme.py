"""What the README shows is executed: its project compiles, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import click

from flyball.cli import cli
from flyball.define.check import check
from flyball.define.compile import compile_project
from flyball.define.load import load_project

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_project_of_the_readme_is_valid(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "project.py").write_text(block)
    project = load_project(str(tmp_path / "project.py"))
    assert check(project) == []
    assert [service.name for service in compile_project(project).services] == ["tip"]


def test_every_command_of_the_readme_exists() -> None:
    assert isinstance(cli, click.Group)
    named = set(re.findall(r"^    flyball (\w+)", README, re.MULTILINE)) | set(re.findall(r"`flyball (\w+)", README))
    assert named >= {"init", "apply", "serve"}
    known = cli.list_commands(click.Context(cli))
    assert named <= set(known)


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make (\w+)", README)) - {"and"}
    assert named <= targets


def test_every_link_of_the_docs_leads_somewhere() -> None:
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("examples/*/*.md"),
    ]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
