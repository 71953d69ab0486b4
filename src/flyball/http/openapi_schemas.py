"""The JSON schemas of the data plane's requests and replies, those of its services' fields among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flyball.define.spec import ColumnSpec
from flyball.kernel.errors import ErrorKind
from flyball.serving.manifest import TensorSpec
from flyball.serving.state import Service
from flyball.serving.tensors import DTYPES

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
ANYTHING: Schema = {}

_COLUMNS: dict[str, Schema] = {
    "string": TEXT,
    "category": TEXT,
    "decimal": {"type": ["number", "string"]},
    "float": NUMBER,
    "integer": WHOLE,
    "boolean": FLAG,
    "timestamp": {"type": ["string", "integer"], "description": "ISO 8601, or microseconds since 1970"},
}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(properties: Mapping[str, Schema], *optional: str, closed: bool = False, about: str = "") -> Schema:
    """An object; all properties are required but the optional ones."""
    schema: Schema = {"type": "object", "properties": dict(properties)}
    required = [name for name in properties if name not in optional]
    if required:
        schema["required"] = required
    if closed:
        schema["additionalProperties"] = False
    if about:
        schema["description"] = about
    return schema


def list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def map_of(schema: Schema) -> Schema:
    return {"type": "object", "additionalProperties": schema}


def row_schema(service: Service) -> Schema:
    """What one row of a service's request is: its version's fields, or its model's tensors."""
    manifest = service.main.manifest
    if manifest.takes_tensors:
        tensors = {spec.name: _row_tensor(spec) for spec in service.main.signature.inputs}
        return object_of(tensors, closed=True, about=f"A row of {service.name}: its model's tensors.")
    fields = {column.name: _column(column) for column in manifest.inputs}
    nullable = [column.name for column in manifest.inputs if column.nullable]
    return object_of(fields, *nullable, about=f"A row of {service.name}.")


def _column(column: ColumnSpec) -> Schema:
    schema = dict(_COLUMNS[column.type])
    if column.description:
        schema["description"] = column.description
    if column.categories:
        schema["enum"] = [*column.categories, *([None] if column.nullable else [])]
    if column.nullable:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        schema["type"] = [*types, "null"]
    return schema


def _row_tensor(spec: TensorSpec) -> Schema:
    """One row of a tensor: a value, or nested lists of them."""
    kind = {"BYTES": TEXT, "BOOL": FLAG}.get(spec.datatype, NUMBER)
    return {"anyOf": [kind, {"type": "array"}], "description": f"{spec.datatype} {list(spec.shape[1:])}"}


def schemas() -> dict[str, Schema]:
    """Every schema that does not depend on what is served, by name."""
    return {**_named(), **_protocol(), **_statistics(), **_errors()}


def _named() -> dict[str, Schema]:
    prediction = {
        "prediction_id": TEXT,
        "prediction": {"description": "a number, a text, true or false, or a model's tensors by name; null: none"},
        "score": NUMBER,
        "scores": map_of(NUMBER),
        "service": TEXT,
        "version": TEXT,
        "arm": TEXT,
        "rung": {"type": "string", "description": "where the answer is from, such as model or default"},
        "features": {"enum": ["fresh", "stale", "default"]},
        "features_behind_us": WHOLE,
        "at": {"type": "integer", "description": "microseconds since 1970"},
        "values": map_of({"type": ["number", "null"]}),
    }
    return {
        "Prediction": object_of(prediction, "score", "scores", "features_behind_us", "values"),
        "RowError": object_of({"error": ref("ErrorData")}, about="In the place of a row that failed."),
        "Predictions": object_of({"predictions": list_of({"anyOf": [ref("Prediction"), ref("RowError")]})}),
        "Status": object_of({"status": TEXT}),
        "WorkerReady": object_of({"ready": FLAG, "epoch": WHOLE}),
    }


def _protocol() -> dict[str, Schema]:
    parameters = {"type": "object", "description": "values by name; those that are not known are ignored"}
    sizes = list_of({"type": "integer", "minimum": 0})
    sized = {"parameters": object_of({"binary_data_size": {"type": "integer", "minimum": 0}}, "binary_data_size")}
    data = {"type": "array", "description": "values in row-major order, flat or nested like the shape; null for NaN"}
    tensor = {"name": TEXT, "datatype": ref("Datatype"), "shape": sizes}
    wanted = object_of({"name": TEXT, "parameters": object_of({"binary_data": FLAG}, "binary_data")}, "parameters")
    about = "`binary_data_output`: all outputs as bytes; `timeout`: microseconds; `priority`: 1 is the highest"
    return {
        "Datatype": {"enum": list(DTYPES)},
        "Live": object_of({"live": FLAG}),
        "Ready": object_of({"ready": FLAG}),
        "ModelReady": object_of({"name": TEXT, "ready": FLAG}),
        "ServerMetadata": object_of({"name": TEXT, "version": TEXT, "extensions": list_of(TEXT)}),
        "TensorMetadata": object_of({"name": TEXT, "datatype": ref("Datatype"), "shape": list_of(WHOLE)}),
        "ModelMetadata": object_of(
            {
                "name": TEXT,
                "versions": list_of(TEXT),
                "platform": TEXT,
                "inputs": list_of(ref("TensorMetadata")),
                "outputs": list_of(ref("TensorMetadata")),
            }
        ),
        "Models": object_of({"models": list_of(TEXT)}),
        "IndexRequest": object_of({"ready": FLAG}, "ready"),
        "Index": list_of(object_of({"name": TEXT, "version": TEXT, "state": TEXT, "reason": TEXT})),
        "RequestInput": object_of({**tensor, "data": data, **sized}, "data", "parameters"),
        "RequestOutput": wanted,
        "InferenceRequest": object_of(
            {
                "id": TEXT,
                "parameters": {**parameters, "description": about},
                "inputs": {**list_of(ref("RequestInput")), "minItems": 1},
                "outputs": list_of(ref("RequestOutput")),
            },
            "id",
            "parameters",
            "outputs",
        ),
        "ReplyOutput": object_of({**tensor, "data": data, **sized}, "data", "parameters"),
        "InferenceReply": object_of(
            {
                "model_name": TEXT,
                "model_version": TEXT,
                "id": TEXT,
                "parameters": parameters,
                "outputs": list_of(ref("ReplyOutput")),
            },
            "id",
            "parameters",
        ),
    }


def _statistics() -> dict[str, Schema]:
    compute = ("compute_input", "compute_infer", "compute_output")
    parts = ("success", "fail", "queue", *compute, "cache_hit", "cache_miss")
    batch = object_of({"batch_size": WHOLE, **_durations(compute)})
    return {
        "Duration": object_of({"count": WHOLE, "ns": WHOLE}),
        "ModelStatistics": object_of(
            {
                "name": TEXT,
                "version": TEXT,
                "last_inference": {"type": "integer", "description": "milliseconds since 1970, 0 for never"},
                "inference_count": WHOLE,
                "execution_count": WHOLE,
                "inference_stats": object_of(_durations(parts)),
                "batch_stats": list_of(batch),
            }
        ),
        "Statistics": object_of({"model_stats": list_of(ref("ModelStatistics"))}),
    }


def _durations(names: Sequence[str]) -> dict[str, Schema]:
    return {name: ref("Duration") for name in names}


def _errors() -> dict[str, Schema]:
    error: dict[str, Schema] = {
        "code": {"type": "string", "description": "stable; match on it, not on the message"},
        "kind": {"enum": [kind.value for kind in ErrorKind]},
        "message": TEXT,
        "hint": TEXT,
        "details": {"type": "object"},
    }
    return {
        "ErrorData": object_of(error, "hint", "details"),
        "Error": object_of({"error": ref("ErrorData")}),
        "ProtocolError": object_of({"error": TEXT}, about="An error of the Open Inference Protocol."),
    }
