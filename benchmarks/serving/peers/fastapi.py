"""FastAPI as fast as it goes by its own documentation: the raw `Request` instead of a declared body, and a `Response`
that orjson wrote, so that nothing is validated or encoded twice; uvicorn on uvloop and httptools, one process, no
access log."""

from __future__ import annotations

import sys

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

from benchmarks.serving.peers.scorer import Scorer, read_tensor


def application() -> FastAPI:
    app, score = FastAPI(openapi_url=None), Scorer()

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        scores = score(read_tensor(orjson.loads(await request.body())))
        return Response(orjson.dumps({"predictions": scores.tolist()}), media_type="application/json")

    return app


if __name__ == "__main__":
    uvicorn.run(
        application(),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
