"""The statistics extension of the Open Inference Protocol, from what the workers counted.

A row that was answered is an inference; a batch is an execution. Batches are counted by size up to the next bound of
the histogram. Parts that a worker does not measure stay at zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flyball.serving.counting import BATCH, BATCH_SECONDS, CACHE, ERRORS, LAST, LATENCY, MODEL, PREDICTIONS, QUEUE, ROWS
from flyball.serving.oip_documents import version_numbers
from flyball.serving.state import State

Sums = Mapping[tuple[str, ...], Sequence[float]]


def statistics_document(
    sums: Sums, state: State, model: str | None = None, number: str | None = None
) -> dict[str, Any]:
    """The statistics of a version, of all versions of a service, or of everything that is served.

    Args:
        sums: what was counted, by metric and labels, over all workers.
    """
    names = sorted(state.services) if model is None else [state.service(model).name]
    shown: list[dict[str, Any]] = []
    for name in names:
        service = state.services[name]
        for one in version_numbers(service) if number is None else [number]:
            ref = service.find(one).ref
            shown.append(_version(sums, name, ref))
    return {"model_stats": shown}


def _version(sums: Sums, service: str, ref: str) -> dict[str, Any]:
    def cells(name: str, *labels: str) -> Sequence[float]:
        return sums.get((name, service, ref, *labels), ())

    def labelled(name: str) -> dict[str, float]:
        return {key[3]: found[0] for key, found in sums.items() if key[:3] == (name, service, ref)}

    answered, failed = sum(labelled(PREDICTIONS.name).values()), sum(labelled(ERRORS.name).values())
    looked = labelled(CACHE.name)
    hits = looked.get("hit", 0.0) + looked.get("coalesced", 0.0)
    latency, total = _total(cells(LATENCY.name)), answered + failed
    share = answered / total if total else 0.0
    batches, by_size = cells(BATCH.name), labelled(BATCH_SECONDS.name)
    sizes = [(bound, count) for bound, count in zip((*ROWS, float("inf")), batches, strict=False) if count]
    return {
        "name": service,
        "version": ref.rpartition("/")[2],
        "last_inference": int(max([0.0, *cells(LAST.name)]) * 1_000),
        "inference_count": int(answered - hits),
        "execution_count": int(sum(cells(MODEL.name)[:-1])),
        "inference_stats": {
            "success": _duration(answered, latency * share),
            "fail": _duration(failed, latency * (1 - share)),
            "queue": _duration(sum(cells(QUEUE.name)[:-1]), _total(cells(QUEUE.name))),
            "compute_input": _duration(0, 0),
            "compute_infer": _duration(sum(cells(MODEL.name)[:-1]), _total(cells(MODEL.name))),
            "compute_output": _duration(0, 0),
            "cache_hit": _duration(hits, 0),
            "cache_miss": _duration(looked.get("miss", 0.0), 0),
        },
        "batch_stats": [
            {
                "batch_size": int(bound if bound < float("inf") else 2 * ROWS[-1]),
                "compute_input": _duration(0, 0),
                "compute_infer": _duration(count, by_size.get(str(bound), 0.0)),
                "compute_output": _duration(0, 0),
            }
            for bound, count in sizes
        ],
    }


def _total(cells: Sequence[float]) -> float:
    return cells[-1] if cells else 0.0


def _duration(count: float, seconds: float) -> dict[str, int]:
    return {"count": int(count), "ns": int(seconds * 1e9)}
