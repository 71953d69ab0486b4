"""Ray Serve: one replica, `@serve.batch` with 64 requests and 1 ms, access log off, no dashboard.

The cluster is told of two processors, for proxy and replica, which share the one core. On one core its
`RAY_SERVE_THROUGHPUT_OPTIMIZED` gave a third of the requests that it gives without, so it is left out.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import numpy as np
import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig
from starlette.requests import Request

from benchmarks.serving.peers.scorer import Scorer, read_tensor

QUIET = LoggingConfig(enable_access_log=False, log_level="WARNING")


@serve.deployment(num_replicas=1, max_ongoing_requests=1_000, logging_config=QUIET)
class Scores:
    def __init__(self) -> None:
        self._score = Scorer()

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.001)
    async def score(self, inputs: list[Any]) -> list[Any]:
        ends = np.cumsum([len(matrix) for matrix in inputs])[:-1]
        return np.split(self._score(np.concatenate(inputs)), ends)

    async def __call__(self, request: Request) -> dict[str, list[float]]:
        scores = await self.score(read_tensor(await request.json()))
        return {"predictions": scores.tolist()}


def main(port: int) -> None:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="warning")
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port), logging_config=QUIET)
    application = Scores.bind()  # type: ignore[attr-defined]  # the decorator made it a deployment
    serve.run(application, route_prefix="/predict", logging_config=QUIET)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main(int(sys.argv[1]))
