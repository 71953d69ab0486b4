"""Models that need their own library, such as scikit-learn's, in a process of their own.

The worker imports nothing of them: it sends float64 matrices over a pipe and reads float64 scores. A child that dies
takes the batch that it was given with it, and is started again at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import struct
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import IO, cast

import msgspec
import numpy as np

from flyball.kernel.errors import FlyballError, InternalError, InvalidError, LateError, UnavailableError, from_data
from flyball.serving.manifest import Manifest
from flyball.serving.ports import Matrix, Score, Tensors

logger = logging.getLogger(__name__)

REQUEST = struct.Struct("<QQ")  # rows, columns
REPLY = struct.Struct("<BQQ")  # status, rows, columns (0: a vector); for an error: 0, bytes of its JSON
OK, FAILED = 0, 1
START_SECONDS = 120.0
ANSWER_SECONDS = 30.0
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class ProcessRuntime:
    """A child process that holds the model of one version. Calls of several threads take turns."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        *,
        start_seconds: float = START_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._start_seconds = start_seconds
        self._answer_seconds = answer_seconds
        self._lock = threading.Lock()
        self._closed = False
        self._child = self._start()
        self._finalizer = weakref.finalize(self, _end, [self._child])

    @property
    def pid(self) -> int:
        return self._child.pid

    def predict(self, matrix: Matrix) -> Score:
        """Raises `model_process_died` where the child died, `model_too_slow` where it does not answer."""
        data = REQUEST.pack(*matrix.shape) + np.ascontiguousarray(matrix, dtype="<f8").tobytes()
        with self._lock:
            if self._closed:
                raise UnavailableError("the version is no longer served", code="version_closed")
            if self._child.poll() is not None:  # it died since, and took nothing with it
                self._restart()
            try:
                return self._exchange(data)
            except (OSError, EOFError):
                code = self._restart()
                raise UnavailableError(
                    f"the model's process died while it scored (exit status {code}); another one was started",
                    code="model_process_died",
                ) from None
            except LateError:
                self._restart()
                raise

    def infer(self, tensors: Tensors) -> Tensors:
        raise InvalidError("a model in a process of its own takes a matrix of features", code="tensors_unsupported")

    def close(self) -> None:
        with self._lock:
            self._closed = True
            _end([self._child])

    def _exchange(self, data: bytes) -> Score:
        child = self._child
        cast(IO[bytes], child.stdin).write(data)
        cast(IO[bytes], child.stdin).flush()
        return _read_reply(child, self._answer_seconds)

    def _start(self) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-m", "flyball.engines.runtimes.child", str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=os.environ | _ONE_THREAD,
            start_new_session=True,  # Ctrl-C in a terminal stops the worker, which then stops this
        )
        try:
            _read_reply(child, self._start_seconds)
        except FlyballError:
            _end([child])
            raise
        except (OSError, EOFError):
            _end([child])
            raise InternalError(
                f"the model's process ended while it loaded the model (exit status {child.returncode})",
                code="model_process_died",
                hint="the worker's log has what it printed",
            ) from None
        return child

    def _restart(self) -> int | None:
        """Start another child in the place of this one; the old one's exit status."""
        _end([self._child])
        code = self._child.returncode
        logger.warning("a model's process is started again", extra={"model": self._manifest.model, "status": code})
        self._finalizer.detach()
        self._child = self._start()
        self._finalizer = weakref.finalize(self, _end, [self._child])
        return code


def _read_reply(child: subprocess.Popen[bytes], seconds: float) -> Score:
    deadline = time.monotonic() + seconds
    status, first, second = REPLY.unpack(_read(child, REPLY.size, deadline))
    if status == FAILED:
        raise from_data(msgspec.json.decode(_read(child, second, deadline)))
    values = np.frombuffer(_read(child, 8 * first * max(second, 1), deadline), dtype="<f8")
    return values.reshape((first, second) if second else (first,)).astype(np.float64)


def _read(child: subprocess.Popen[bytes], size: int, deadline: float) -> bytes:
    pipe = cast(IO[bytes], child.stdout)
    data = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while len(data) < size:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise LateError("the model's process does not answer; it was stopped", code="model_too_slow")
            part = os.read(pipe.fileno(), size - len(data))
            if not part:
                raise EOFError
            data += part
    return bytes(data)


def _end(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
