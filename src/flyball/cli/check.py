"""`flyball check`: is this project right?"""

from __future__ import annotations

import click

from flyball.cli.options import json_option, project_argument
from flyball.cli.output import show
from flyball.kernel.errors import InvalidError


@click.command(epilog="Example: flyball check fraud/project.py")
@project_argument
@json_option
def check(project: str, as_json: bool) -> None:
    """Validate PROJECT (a file, or module:attribute): declarations, names and leaks. Needs no platform."""
    from flyball.define.check import check as problems_of
    from flyball.define.compile import compile_project
    from flyball.define.load import load_project

    declared = load_project(project)
    problems = problems_of(declared)
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        found = "\n".join(str(problem) for problem in problems)
        raise InvalidError(
            f"{declared.name} has {len(errors)} problem{'s' * (len(errors) > 1)}\n{found}",
            code="project_invalid",
            details={"problems": [problem.to_data() for problem in problems]},
        )
    spec = compile_project(declared)
    kinds = ("sources", "views", "models", "services", "batches")
    counts = {kind: len(getattr(spec, kind)) for kind in kinds}
    lines = [str(problem) for problem in problems]
    lines.append(f"{spec.name} is valid: " + ", ".join(f"{n} {kind}" for kind, n in counts.items() if n))
    data = {"project": spec.name, **counts, "problems": [problem.to_data() for problem in problems]}
    show(data, as_json=as_json, text="\n".join(lines))
