"""LitServe: one API server, one inference worker, batches of 64 within 1 ms, `fast_queue` (ZeroMQ between the two,
which its documentation advises for high load), uvicorn without an access log."""

import sys

import litserve
import numpy as np
import numpy.typing as npt
from fastapi import Request

from benchmarks.serving.peers.scorer import Scorer, read_tensor

Floats = npt.NDArray[np.float32]


class Scores(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self._score = Scorer()

    def decode_request(self, request: Request) -> Floats:  # the annotation that LitServe knows; it hands over JSON
        return read_tensor(request)

    def batch(self, inputs: list[Floats]) -> list[Floats]:
        return inputs

    def predict(self, inputs: list[Floats]) -> list[Floats]:
        ends = np.cumsum([len(matrix) for matrix in inputs])[:-1]
        return np.split(self._score(np.concatenate(inputs)), ends)

    def unbatch(self, output: list[Floats]) -> list[Floats]:
        return output

    def encode_response(self, output: Floats) -> dict[str, list[float]]:
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(
        Scores(max_batch_size=64, batch_timeout=0.001), accelerator="cpu", workers_per_device=1, fast_queue=True
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
