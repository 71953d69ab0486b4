"""A runtime of MLServer for the reference models: ONNX Runtime behind MLServer's own codecs.

It is imported by MLServer: put this file's folder on PYTHONPATH, and `mlserver start DIR`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri


class OnnxRuntime(MLModel):  # type: ignore[misc,unused-ignore]  # where MLServer is not installed
    """One session."""

    async def load(self) -> bool:
        self._session: Any = onnxruntime.InferenceSession(await get_model_uri(self.settings))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer with all outputs, or with those that are asked for, in that order."""
        given = {one.name: _array(one) for one in payload.inputs}
        known = [one.name for one in self._session.get_outputs()]
        asked = [one.name for one in payload.outputs or []] or known
        try:
            results = self._session.run(asked, given)
        except Exception as error:
            raise InferenceError(str(error)) from None
        outputs = [_output(name, np.asarray(result)) for name, result in zip(asked, results, strict=True)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)


def _array(given: Any) -> Any:
    if given.datatype == "BYTES":
        return np.array(StringCodec.decode_input(given), dtype=object).reshape(given.shape)
    return NumpyCodec.decode_input(given)


def _output(name: str, array: Any) -> Any:
    """An output in the shape that the model gave it: the codecs would make [n] a [n, 1]."""
    if array.dtype == object:
        output = StringCodec.encode_output(name, array.ravel().tolist())
    else:
        output = NumpyCodec.encode_output(name, array)
    output.shape = list(array.shape)
    return output
