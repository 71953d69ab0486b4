"""Where the files of this benchmark lie. Standard library only: the peers' scripts, in environments of their own, read
it too."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = ROOT / ".bench" / "data" / "serving"

FEATURES = 30
DISTINCT = 256  # bodies of one row
MANY, DISTINCT_MANY = 1_000, 8  # rows of a large body, and how many such bodies

MODEL = DATA / "model.txt"
OTHER = DATA / "other.txt"  # the same with another seed: what a rollout goes to
NARROW = DATA / "narrow.txt"  # on the request's own fields alone, for the work beside a lookup
ONNX = DATA / "model.onnx"
PADDED = DATA / "padded.onnx"  # a calibrated amount of work a row
PADDED_SHAPE = DATA / "padded.json"

INPUT = "input"  # the name of the one tensor, `[-1, 30]`
SERVICE = "scores"  # how every server calls the model
