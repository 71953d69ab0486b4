"""MLServer with a runtime of its own kind, as its documentation has it for custom models.

Adaptive batching with 64 rows and 2 ms; inference in the server's own process (`parallel_workers` 0: more processes
share the one core), `debug` off, which turns the access log off.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.serving.files import SERVICE
from benchmarks.serving.peers.scorer import Scorer


class Scores(MLModel):
    async def load(self) -> bool:
        self._score = Scorer()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        matrix = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32, copy=False)
        output = NumpyCodec.encode_output("score", self._score(matrix)[:, None])
        return InferenceResponse(model_name=self.name, outputs=[output])


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


async def main(port: int, folder: Path) -> None:
    settings = {
        "name": SERVICE,
        "implementation": "benchmarks.serving.peers.mlserver.Scores",
        "max_batch_size": 64,
        "max_batch_time": 0.002,
    }
    (folder / "model-settings.json").write_text(json.dumps(settings))
    os.chdir(folder)  # it writes metrics below
    server = MLServer(
        Settings(
            debug=False,
            host="127.0.0.1",
            http_port=port,
            grpc_port=_free(),
            metrics_port=_free(),
            parallel_workers=0,
            model_repository_root=str(folder),
        )
    )
    await server.start(models_settings=[ModelSettings.model_validate(settings)])


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1]), Path(sys.argv[2])))
