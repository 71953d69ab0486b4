"""Conformance of version ledgers and artifact stores; runs on the SQLite and the directory adapter."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from flyball.kernel.errors import ConflictError, FlyballError, InternalError, InvalidError, NotFoundError
from flyball.registry.ports import ArtifactStore, VersionStore


def test_versions_are_numbered_from_one_for_each_model(version_store: VersionStore) -> None:
    first = version_store.register("tip", digest="a" * 64, run="run_1", at=5, metrics={"auc": 0.9})
    second = version_store.register("tip", digest="b" * 64, run="run_2", at=6)
    other = version_store.register("fraud", digest="c" * 64, run="run_3", at=7)
    assert [first.ref, second.ref, other.ref] == ["tip/1", "tip/2", "fraud/1"]
    assert version_store.get("tip", 1) == first
    assert first.metrics == {"auc": 0.9}
    assert version_store.list("tip") == [second, first]
    assert version_store.find("a" * 64) == [first]


def test_registering_a_run_again_gives_the_same_number(version_store: VersionStore) -> None:
    first = version_store.register("tip", digest="a" * 64, run="run_1", at=5)
    assert version_store.register("tip", digest="a" * 64, run="run_1", at=9) == first
    with pytest.raises(ConflictError) as caught:
        version_store.register("tip", digest="b" * 64, run="run_1", at=9)
    assert caught.value.code == "run_registered"


def test_concurrent_registrations_get_distinct_numbers_without_gaps(version_store: VersionStore) -> None:
    def register(number: int) -> int:
        return version_store.register("tip", digest=f"{number:064x}", run=f"run_{number}", at=1).number

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(register, range(12))) == list(range(1, 13))


def test_an_alias_moves_only_from_where_it_is_expected(version_store: VersionStore) -> None:
    for number in (1, 2):
        version_store.register("tip", digest=f"{number:064x}", run=f"run_{number}", at=1)
    version_store.set_alias("tip", "champion", 1, expected=None, at=2)
    assert version_store.aliases("tip") == {"champion": 1}
    version_store.set_alias("tip", "champion", 2, expected=1, at=3)
    for expected in (None, 1):
        with pytest.raises(ConflictError) as caught:
            version_store.set_alias("tip", "champion", 1, expected=expected, at=4)
        assert caught.value.code == "alias_changed"
        assert caught.value.details["actual"] == 2
    with pytest.raises(NotFoundError):
        version_store.set_alias("tip", "champion", 9, expected=2, at=4)


@pytest.mark.parametrize("expected", [None, 1])
def test_of_concurrent_moves_of_an_alias_exactly_one_wins(version_store: VersionStore, expected: int | None) -> None:
    for number in range(1, 9):
        version_store.register("tip", digest=f"{number:064x}", run=f"run_{number}", at=1)
    if expected is not None:
        version_store.set_alias("tip", "champion", expected, expected=None, at=1)

    def move(number: int) -> int | None:
        try:
            version_store.set_alias("tip", "champion", number, expected=expected, at=2)
        except ConflictError:
            return None
        return number

    with ThreadPoolExecutor(4) as pool:
        winners = [number for number in pool.map(move, range(2, 9)) if number is not None]
    assert version_store.aliases("tip") == {"champion": winners[0]}
    assert len(winners) == 1


def test_an_unknown_version_is_named(version_store: VersionStore) -> None:
    with pytest.raises(NotFoundError) as caught:
        version_store.get("tip", 3)
    assert "tip/3" in caught.value.message


def test_bytes_are_kept_under_their_digest(artifacts: ArtifactStore) -> None:
    digest = artifacts.put(b"hello")
    assert digest == hashlib.sha256(b"hello").hexdigest()
    assert artifacts.put(b"hello") == digest
    assert artifacts.has(digest)
    assert artifacts.get(digest) == b"hello"
    assert artifacts.path(digest).read_bytes() == b"hello"


def test_a_corrupted_artifact_is_detected_and_a_good_copy_heals_it(artifacts: ArtifactStore) -> None:
    digest = artifacts.put(b"hello")
    path = artifacts.path(digest)
    path.chmod(0o644)
    path.write_bytes(b"hellO")
    for read in (artifacts.get, artifacts.path):
        with pytest.raises(InternalError) as caught:
            read(digest)
        assert caught.value.code == "artifact_corrupt"
    artifacts.put(b"hello")
    assert artifacts.get(digest) == b"hello"


def test_a_digest_that_is_a_path_is_refused(artifacts: ArtifactStore) -> None:
    unknown = "0" * 64
    assert not artifacts.has(unknown)
    with pytest.raises(NotFoundError):
        artifacts.get(unknown)
    with pytest.raises(InvalidError) as caught:
        artifacts.get("../../etc/passwd")
    assert isinstance(caught.value, FlyballError)
    assert caught.value.code == "bad_digest"
