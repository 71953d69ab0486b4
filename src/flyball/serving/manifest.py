"""The manifest of a version, as serving reads it; what else stands in it is kept in `data`."""

from __future__ import annotations

from typing import Any

import msgspec

from flyball.define.spec import ColumnSpec, FeatureSpec, SourceSpec, TaskSpec, ViewSpec
from flyball.kernel.errors import InvalidError

MANIFEST = "manifest.json"
MANIFEST_FORMAT = "flyball.version"


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A named tensor: its Open Inference Protocol type and its shape, -1 for any size."""

    name: str
    datatype: str = "FP32"
    shape: tuple[int, ...] = ()


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker must know of a version. `inputs` are the request's fields; without `features` a model takes its
    own tensors."""

    model: str
    task: TaskSpec | None = None
    rows: str = ""
    features: tuple[FeatureSpec, ...] = ()
    views: tuple[ViewSpec, ...] = ()
    sources: tuple[SourceSpec, ...] = ()
    inputs: tuple[ColumnSpec, ...] = ()
    runtime: dict[str, Any] = {}
    signature: Signature = Signature()
    files: dict[str, str] = {}

    @property
    def kind(self) -> str:
        """The runtime's kind; "" for features without a model."""
        kind = str(self.runtime.get("kind") or "")
        return "" if kind == "none" else kind

    @property
    def takes_tensors(self) -> bool:
        """Whether requests bring the model's own tensors instead of fields."""
        return bool(self.kind) and not self.features

    @property
    def tensors(self) -> Signature:
        """The model's own tensors: the runtime's where it says so, else the signature's."""
        own = self.runtime.get("tensors")
        return msgspec.convert(own, Signature) if own else self.signature


def manifest_from_data(data: dict[str, Any]) -> Manifest:
    """Read a manifest; `bad_manifest` says where it is none."""
    known = {key: value for key, value in data.items() if value is not None}
    if not _tensor_signature(known.get("signature")):
        known.pop("signature", None)
    try:
        return msgspec.convert(known, Manifest)
    except msgspec.ValidationError as error:
        raise InvalidError(f"the version's manifest is not one: {error}", code="bad_manifest") from None


def _tensor_signature(signature: Any) -> bool:
    """Whether a signature lists tensors; that of a model with features may list columns instead."""
    try:
        msgspec.convert(signature, Signature)
    except msgspec.ValidationError:
        return False
    return True
