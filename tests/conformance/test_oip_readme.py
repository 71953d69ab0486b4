"""The kit's README lists every test of the kit, with its clause and what it holds."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

from tests.conformance.serving import ROOT

KIT = ROOT / "conformance" / "oip"


def rows() -> Iterator[str]:
    """The README's line for each test, by file and in the file's order."""
    for path in sorted(KIT.glob("test_*.py")):
        tree = ast.parse(path.read_text())
        named = {
            node.targets[0].id: clause
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and (clause := _clause(node.value, {}))
        }
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                own = [clause for mark in node.decorator_list if (clause := _clause(mark, named))]
                clause = own[0] if own else named["pytestmark"]
                yield f"| `{node.name}` | {clause} | {(ast.get_docstring(node) or '').replace('|', '/')} |"


def _clause(node: ast.expr, named: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return named.get(node.id, "")
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.clause":
        return str(ast.literal_eval(node.args[0]))
    return ""


def test_the_readme_lists_every_test_of_the_kit() -> None:
    text = (KIT / "README.md").read_text()
    listed = [line for line in text.splitlines() if line.startswith("| `test_")]
    assert listed == list(rows())
    assert not [line for line in listed if line.endswith("|  |")], "each test says what it holds"


def test_the_kit_depends_on_nothing_of_this_repository() -> None:
    allowed = {"pytest", "httpx", "numpy", "tritonclient", "onnx", "onnxruntime", "mlserver"}
    for path in KIT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not [name for name in names if name.startswith("flyball")], path
            roots = {name.partition(".")[0] for name in names}
            assert roots <= allowed | set(sys.stdlib_module_names), path
