"""BentoML: a service of one worker with a batchable method, which its documentation advises; its adaptive batching at
the documented defaults. Access log, metrics and tracing are off."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
import numpy.typing as npt

from benchmarks.serving.files import ROOT
from benchmarks.serving.peers.scorer import Scorer

OFF = {"enabled": False}


@bentoml.service(workers=1, metrics=OFF, monitoring=OFF, logging={"access": OFF})
class Scores:
    def __init__(self) -> None:
        self._score = Scorer()

    @bentoml.api(batchable=True, route="/predict")
    def predict(self, inputs: np.ndarray) -> npt.NDArray[np.float32]:
        return self._score(inputs.astype(np.float32, copy=False))


def main(port: int, folder: Path) -> None:
    command = [sys.executable, "-m", "bentoml", "serve", "benchmarks.serving.peers.bentoml:Scores"]
    command += ["--working-dir", str(ROOT), "--host", "127.0.0.1", "--port", str(port)]
    told = {"BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "true"}
    os.execve(sys.executable, command, os.environ | told)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
