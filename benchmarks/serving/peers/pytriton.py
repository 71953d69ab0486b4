"""PyTriton: Triton's own HTTP server in C++, and a Python function behind its dynamic batcher.

Batches of at most 64 rows, and of 1,024 where a request has 1,000: a larger limit makes single rows slower. A request
waits at most 0.5 ms for others. gRPC, metrics and verbose logs are off.
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.serving.files import FEATURES, INPUT, SERVICE
from benchmarks.serving.peers.scorer import Scorer


def main(port: int, rows: int) -> None:
    score = Scorer()

    @batch
    def infer(**inputs: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        return {"score": score(inputs[INPUT])[:, None]}

    config = TritonConfig(
        http_address="127.0.0.1", http_port=port, allow_grpc=False, allow_metrics=False, log_verbose=0
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name=SERVICE,
            infer_func=infer,
            inputs=[Tensor(name=INPUT, dtype=np.float32, shape=(FEATURES,))],
            outputs=[Tensor(name="score", dtype=np.float32, shape=(1,))],
            config=ModelConfig(
                max_batch_size=64 if rows == 1 else 1024, batcher=DynamicBatcher(max_queue_delay_microseconds=500)
            ),
            strict=False,
        )
        triton.serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[3]))
