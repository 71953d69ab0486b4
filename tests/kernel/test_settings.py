from pathlib import Path

import pytest

from flyball.kernel.errors import InvalidError
from flyball.kernel.settings import Settings, client_settings, secret_value, worker_bounds


@pytest.mark.parametrize("port", [-1, 65_534, 70_000])
def test_a_port_that_leaves_no_room_for_three_is_refused(port: int) -> None:
    with pytest.raises(InvalidError) as caught:
        Settings(port=port)
    assert caught.value.code == "bad_port"


@pytest.mark.parametrize("workers", [0, "0", "-1", "3:2", "0:2", "many", "1:2:3", ""])
def test_workers_are_a_number_from_1_on_or_bounds(workers: int | str) -> None:
    with pytest.raises(InvalidError, match="MIN:MAX") as caught:
        Settings(workers=workers)
    assert caught.value.code == "bad_workers"


def test_bounds_of_workers_are_taken_as_text_or_number() -> None:
    assert worker_bounds(Settings(workers=3).workers) == (3, 3)
    assert worker_bounds(Settings(workers="2:8").workers) == (2, 8)


def test_a_client_reads_its_address_and_token_from_the_environment(tmp_path: Path) -> None:
    settings = client_settings({"FLYBALL_URL": "http://here:1/", "FLYBALL_TOKEN": "t"}, state=tmp_path)
    assert (settings.url, settings.token) == ("http://here:1", "t")


def test_without_a_token_the_one_of_the_state_directory_is_used(tmp_path: Path) -> None:
    assert client_settings({}, state=tmp_path).token == ""
    (tmp_path / "token").write_text("abc\n")
    assert client_settings({}, state=tmp_path).token == "abc"
    assert client_settings({"FLYBALL_STATE": str(tmp_path)}).token == "abc"


def test_a_secret_that_is_not_set_is_named_and_one_that_is_comes_back() -> None:
    assert secret_value("PG_DSN", {"PG_DSN": "x"}) == "x"
    with pytest.raises(InvalidError, match="PG_DSN") as caught:
        secret_value("PG_DSN", {})
    assert caught.value.code == "secret_missing"


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_of_entities_is_between_none_and_all(share: float) -> None:
    with pytest.raises(InvalidError, match=r"0 \(none\) to 1 \(all\)") as caught:
        Settings(audit_share=share)
    assert caught.value.code == "bad_audit_share"
