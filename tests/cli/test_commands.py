import subprocess
import sys

import pytest

from flyball.cli import COMMANDS, cli
from tests.cli.run_cli import flyball

ASKED_FOR = (
    "init infer check plan apply up serve ingest quarantine train release rollback predict status logs demo approve "
    "erase features explain skew"
)


def test_the_commands_are_those_that_were_promised() -> None:
    assert set(COMMANDS) == set(ASKED_FOR.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    ran = flyball(name, "--help")
    assert ran.status == 0
    assert "Example" in ran.out
    assert "flyball " + name in ran.out.partition("Example")[2].replace("\n", " ")


@pytest.mark.parametrize("name", set(COMMANDS) - {"up", "serve", "demo", "logs", "quarantine"})
def test_every_command_with_a_result_speaks_json(name: str) -> None:
    assert "--json" in flyball(name, "--help").out


@pytest.mark.parametrize("name", ["list", "show", "retry", "drop"])
def test_every_verb_of_the_quarantine_has_an_example_and_speaks_json(name: str) -> None:
    out = flyball("quarantine", name, "--help").out
    assert "--json" in out
    assert f"Example: flyball quarantine {name}" in out


def test_help_lists_every_command_in_its_order() -> None:
    out = flyball("--help").out
    places = [out.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)


def test_help_imports_no_command_and_nothing_heavy() -> None:
    script = (
        "import sys\nfrom flyball.cli import run\nassert run(['--help']) == 0\n"
        "heavy = {'rich', 'httpx', 'numpy', 'polars', 'numba', 'fastapi', 'flyball.client', "
        "'flyball.platform', 'flyball.cli.up'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_an_unknown_command_is_named() -> None:
    ran = flyball("stauts")
    assert ran.status == 2
    assert "No such command 'stauts'" in ran.err


def test_the_version_is_printed() -> None:
    assert cli.params


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",), ("train", "m"), ("release", "s"), ("rollback", "s"), ("approve", "s"), ("predict", "s", "a=1"),
        ("ingest", "s", __file__.replace(".py", ".csv")), ("ingest", "s", "--pull"), ("logs",), ("logs", "run_x"),
        ("quarantine", "list", "S"), ("quarantine", "show", "S:1.1"), ("quarantine", "retry", "S"),
        ("quarantine", "drop", "S", "--all"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_where_nothing_answers_the_command_says_flyball_up(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("FLYBALL_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("FLYBALL_STATE", str(tmp_path))
    ran = flyball(*arguments)
    if arguments[0] == "ingest" and "--pull" not in arguments:
        assert ran.status == 3  # the file is looked at first
        return
    assert (ran.status, ran.out) == (7, "")
    assert "nothing answers at http://127.0.0.1:" in ran.err
    assert "flyball up" in ran.err


def test_for_scripts_that_error_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYBALL_URL", "http://127.0.0.1:9")
    ran = flyball("status", "--json")
    assert (ran.status, ran.json["error"]["code"]) == (7, "not_running")


@pytest.mark.parametrize("arguments", [("ingest", "Orders"), ("ingest", "Orders", "orders.csv", "--pull")])
def test_ingest_takes_a_file_or_pulls(arguments: tuple[str, ...]) -> None:
    ran = flyball(*arguments)
    assert ran.status == 2
    assert "--pull" in ran.err
