"""`flyball init`: a small project that works."""

from __future__ import annotations

from pathlib import Path

import click

from flyball.cli.output import show
from flyball.kernel.errors import ConflictError
from flyball.kernel.files import write_atomic

SKELETON = Path(__file__).parent / "skeleton"
FILES = {  # what is written → the file here that it comes from
    "project.py": "project.py.txt",
    "trips.csv": "trips.csv",
    "tests/test_project.py": "test_project.py.txt",
    ".github/workflows/ci.yml": "ci.yml",
    ".gitignore": "gitignore.txt",
}


@click.command(epilog="Example: flyball init taxi && cd taxi && flyball check")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for scripts.")
def init(folder: Path, as_json: bool) -> None:
    """Write a working project, one test and a CI file into FOLDER; nothing that is there is overwritten."""
    there = [name for name in FILES if (folder / name).exists()]
    if there:
        raise ConflictError(
            f"{folder / there[0]} is there already, and nothing is overwritten",
            code="file_exists",
            hint="flyball init another-folder",
        )
    for name, source in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (SKELETON / source).read_bytes())
    where = "" if folder == Path() else f"cd {folder}\n  "
    text = (
        f"wrote {', '.join(FILES)}\n\nnext:\n  {where}flyball check\n  flyball up          (in another terminal)\n"
        "  flyball apply\n  flyball ingest Trips trips.csv\n  flyball train tip\n"
        "  flyball predict tip company=Sun payment_type=Cash fare=12.5"
    )
    show({"folder": str(folder), "files": list(FILES)}, as_json=as_json, text=text)
