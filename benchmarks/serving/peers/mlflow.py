"""MLflow's model server on the LightGBM model itself, one worker, in the environment that is there. The access log is
turned off by uvicorn's own variable."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import lightgbm
import mlflow.lightgbm

from benchmarks.serving.files import MODEL


def main(port: int, folder: Path) -> None:
    model = folder / "model"
    booster = lightgbm.Booster(model_file=str(MODEL))
    mlflow.lightgbm.save_model(booster, str(model), pip_requirements=["mlflow", "lightgbm"])
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--env-manager", "local"]
    os.execve(sys.executable, command, os.environ | {"UVICORN_ACCESS_LOG": "false", "UVICORN_LOG_LEVEL": "warning"})


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
