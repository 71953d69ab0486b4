import logging
import threading

import pytest

from flyball.kernel.errors import UnavailableError
from flyball.platform.process import Loop


def test_a_loop_goes_on_after_a_failure_and_tells_the_last_one(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []
    failed, went_on = threading.Event(), threading.Event()

    def work() -> None:
        calls.append(1)
        if len(calls) == 1:
            failed.set()
            raise UnavailableError("no ingest")
        went_on.set()

    with caplog.at_level(logging.CRITICAL):
        loop = Loop("tick", work, every=0.001).start()
        assert failed.wait(10)
        assert went_on.wait(10)
        loop.stop()
    assert loop.error == ""
    count = len(calls)
    assert count >= 2
    assert not went_on.wait(0) or len(calls) == count
