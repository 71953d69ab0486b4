"""Feast on SQLite: 50 k entities with 22 features materialized, then read one entity at a time through its SDK.

Argument: how many reads. Feast is given values that were computed already; it stores and returns them.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64

ENTITIES, FEATURES = 50_000, 22


def store(folder: Path) -> FeatureStore:
    rng = np.random.default_rng(1)
    now = datetime.now(UTC)
    frame = pd.DataFrame({f"f{i}": rng.random(ENTITIES) for i in range(FEATURES)})
    frame["user"] = np.arange(ENTITIES)
    frame["event_timestamp"] = now - timedelta(hours=1)
    frame.to_parquet(folder / "features.parquet")
    found = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            offline_store={"type": "dask"},
            entity_key_serialization_version=3,
        )
    )
    user = Entity(name="user", join_keys=["user"], value_type=ValueType.INT64)
    view = FeatureView(
        name="by_user",
        entities=[user],
        ttl=timedelta(days=30),
        schema=[Field(name=f"f{i}", dtype=Float64) for i in range(FEATURES)],
        source=FileSource(path=str(folder / "features.parquet"), timestamp_field="event_timestamp"),
    )
    found.apply([user, view])
    return found


def main(reads: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        feast = store(Path(folder))
        started = time.perf_counter()
        feast.materialize(datetime.now(UTC) - timedelta(days=1), datetime.now(UTC))
        materialize = time.perf_counter() - started
        names = [f"by_user:f{i}" for i in range(FEATURES)]
        rng = np.random.default_rng(2)
        took = []
        for user in rng.integers(0, ENTITIES, reads + 200).tolist():
            began = time.perf_counter_ns()
            answer = feast.get_online_features(features=names, entity_rows=[{"user": user}]).to_dict()
            took.append((time.perf_counter_ns() - began) / 1_000)
            if answer["f0"][0] is None:
                raise SystemExit("Feast gave no value")
        took = took[200:]
    print(
        json.dumps(
            {
                "materialize_seconds": materialize,
                "entities_per_second": ENTITIES / materialize,
                "p50_us": float(np.percentile(took, 50)),
                "p99_us": float(np.percentile(took, 99)),
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
