"""A plain client: single requests, and many at once to see that every answer is the right one."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

Scores = list[float]
Read = Callable[[Mapping[str, str], bytes], Scores]

AT_ONCE = 16
TIMEOUT = 30.0


class Client:
    """One connection, kept. `headers` go with every request."""

    def __init__(self, port: int, headers: Mapping[str, str] | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        self._headers = dict(headers or {})

    def post(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        return self._ask("POST", path, body)

    def get(self, path: str) -> bytes:
        return self._ask("GET", path, None)[2]

    def close(self) -> None:
        self._connection.close()

    def _ask(self, method: str, path: str, body: bytes | None) -> tuple[int, dict[str, str], bytes]:
        try:
            self._connection.request(method, path, body, self._headers)
            answer = self._connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        except http.client.HTTPException as error:
            self._connection.close()
            raise OSError(str(error)) from error


def check(
    port: int,
    path: str,
    headers: Mapping[str, str],
    bodies: Sequence[bytes],
    expected: Sequence[npt.NDArray[np.float64]],
    read: Read,
    *,
    tolerance: float,
) -> None:
    """Ask everything, many at once so that batches form, and fail where one answer is not as expected."""

    def part(start: int) -> list[tuple[int, Scores]]:
        client = Client(port, headers)
        found = []
        for i in range(start, len(bodies), AT_ONCE):
            status, answered, body = client.post(path, bodies[i])
            if status != 200:
                raise SystemExit(f"request {i} was answered with {status}: {body[:500]!r}")
            found.append((i, read(answered, body)))
        client.close()
        return found

    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = [answer for part in threads.map(part, range(AT_ONCE)) for answer in part]
    if len(answers) != len(bodies):
        raise SystemExit(f"{len(answers)} of {len(bodies)} requests were answered")
    for i, scores in answers:
        if len(scores) != len(expected[i]) or not np.allclose(scores, expected[i], rtol=0, atol=tolerance):
            raise SystemExit(f"request {i}: {scores[:5]} is not LightGBM's {expected[i][:5].tolist()}")


def read_oip(headers: Mapping[str, str], body: bytes) -> Scores:
    """The scores of a reply in the Open Inference Protocol, JSON or binary."""
    length = headers.get("inference-header-content-length")
    head, raw = (body, b"") if length is None else (body[: int(length)], body[int(length) :])
    at, tensors = 0, {}
    for output in json.loads(head)["outputs"]:
        size = (output.get("parameters") or {}).get("binary_data_size")
        data: Any = output.get("data")
        if size is not None:
            if output["datatype"] in ("FP32", "FP64"):
                data = np.frombuffer(raw[at : at + size], "<f4" if output["datatype"] == "FP32" else "<f8")
            at += size
        tensors[output["name"]] = (data, output["shape"], output["datatype"])
    data, shape, _ = tensors.get("score") or next(t for t in tensors.values() if t[2] in ("FP32", "FP64"))
    matrix = np.asarray(data, np.float64).reshape(shape[0], -1)
    scores: Scores = matrix[:, -1].tolist()  # of two columns the second is the probability of true
    return scores


def read_predict(headers: Mapping[str, str], body: bytes) -> Scores:
    """The score of a reply of `:predict`."""
    return [float(json.loads(body)["score"])]


def read_plain(headers: Mapping[str, str], body: bytes) -> Scores:
    """`{"predictions": […]}`, or the list alone."""
    found = json.loads(body)
    return [float(score) for score in (found["predictions"] if isinstance(found, dict) else found)]
