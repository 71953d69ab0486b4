"""Standard output and error of the user's code as lines of `log.jsonl`, with times, secrets masked."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import select
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from flyball.kernel.times import show_time
from flyball.training.secrecy import Mask

_LONGEST_LINE = 64 * 1024
_LINE_END = re.compile(rb"[\r\n]+")  # a progress bar ends its lines with a carriage return


class LogFile:
    """Appends `{"time", "stream", "text"}` to a file of JSON lines; safe to use from several threads."""

    def __init__(self, path: Path, mask: Mask) -> None:
        self._file = path.open("a", encoding="utf-8")
        self.mask = mask
        self._lock = threading.Lock()

    def write(self, stream: str, text: str) -> None:
        line = json.dumps(
            {"time": show_time(time.time_ns() // 1_000), "stream": stream, "text": self.mask(text)}, ensure_ascii=False
        )
        with self._lock:
            self._file.write(line + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()


class Lines:
    """Cuts a stream of bytes into lines. A line without an end is cut at 64 KiB, but never within a secret."""

    def __init__(self, log: LogFile, stream: str) -> None:
        self._log, self._stream = log, stream
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = _LINE_END.split(self._rest + data)
        for line in lines:
            self._emit(line)
        overlap = self._log.mask.longest
        if len(self._rest) > _LONGEST_LINE + overlap:
            text = self._log.mask(self._rest.decode("utf-8", errors="ignore")).encode()
            keep = len(text) - overlap  # a secret that has begun in the kept part can still be completed
            self._emit(text[:keep])
            self._rest = text[keep:]

    def close(self) -> None:
        self._emit(self._rest)
        self._rest = b""

    def _emit(self, line: bytes) -> None:
        if line:
            self._log.write(self._stream, line.decode("utf-8", errors="replace"))


@contextlib.contextmanager
def capture_descriptors(log: LogFile) -> Iterator[None]:
    """Everything the process writes to descriptors 1 and 2, native libraries and child processes included."""
    stop_read, stop_write = os.pipe()
    readers, saved, watched = [], {}, {}
    for number, stream in ((1, "stdout"), (2, "stderr")):
        read, write = os.pipe()
        saved[number] = os.dup(number)
        os.dup2(write, number)
        os.close(write)
        os.set_blocking(read, False)
        readers.append(read)
        watched[read] = Lines(log, stream)
    thread = threading.Thread(target=_pump, args=(watched, stop_read), name="log-capture", daemon=True)
    thread.start()
    try:
        yield
    finally:
        for stream_object in (sys.stdout, sys.stderr):
            stream_object.flush()
        for number, descriptor in saved.items():
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(stop_write)  # not the end of the pipes: a process that the user left behind may hold them open
        thread.join()
        for descriptor in (*readers, stop_read):
            os.close(descriptor)


def _pump(watched: dict[int, Lines], stop: int) -> None:
    open_ends, stopping = set(watched), False
    while open_ends and not stopping:
        ready, _, _ = select.select([*open_ends, stop], [], [])
        stopping = stop in ready
        for descriptor in open_ends if stopping else [d for d in ready if d != stop]:
            if not _drain(descriptor, watched[descriptor]):
                open_ends = open_ends - {descriptor}
    for lines in watched.values():
        lines.close()


def _drain(descriptor: int, lines: Lines) -> bool:
    """Take what is there now; False at the end of the pipe."""
    while True:
        try:
            data = os.read(descriptor, 65_536)
        except BlockingIOError:
            return True
        if not data:
            return False
        lines.feed(data)


@contextlib.contextmanager
def capture_streams(log: LogFile) -> Iterator[None]:
    """`sys.stdout` and `sys.stderr`, still shown where they were: for the foreground, where a debugger needs them."""
    out, err = _Tee(sys.stdout, log, "stdout"), _Tee(sys.stderr, log, "stderr")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield
        finally:
            out.end()
            err.end()


class _Tee(io.TextIOBase):
    def __init__(self, shown: TextIO, log: LogFile, stream: str) -> None:
        self._shown = shown
        self._lines = Lines(log, stream)

    def write(self, text: str) -> int:
        self._shown.write(text)
        self._lines.feed(text.encode("utf-8", errors="replace"))
        return len(text)

    def flush(self) -> None:
        self._shown.flush()

    def end(self) -> None:
        self._lines.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shown, name)
