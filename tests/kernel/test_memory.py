from __future__ import annotations

from flyball.kernel.memory import KEEPING, keeping


def test_memory_is_kept_as_said_and_what_the_user_set_stays() -> None:
    given = {"PATH": "/bin", "MALLOC_TRIM_THRESHOLD_": "1"}
    assert keeping(given) == KEEPING | given
    assert keeping({}) == KEEPING
