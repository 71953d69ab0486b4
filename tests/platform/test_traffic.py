import pytest

from flyball.platform.traffic import Traffic, parse, quantile


def text(worker: str, *counts: int, errors: int = 0) -> str:
    """One worker's metrics: predictions up to 1 ms, up to 10 ms, and above."""
    labels = f'worker="{worker}",service="tip",version="tip/1"'
    total = 0
    lines = []
    for bound, count in zip(("0.001", "0.01", "+Inf"), counts, strict=True):
        total += count
        lines.append(f'flyball_prediction_seconds_bucket{{{labels},le="{bound}"}} {total}')
    lines.append(f"flyball_prediction_seconds_count{{{labels}}} {total}")
    lines.append(f'flyball_prediction_errors_total{{{labels},code="x"}} {errors}')
    lines.append(f'flyball_plan_epoch{{worker="{worker}"}} 3.0')
    return "# HELP x y\n" + "\n".join(lines) + "\n"


def test_counters_are_read_by_worker_and_service() -> None:
    (found,) = parse(text("0", 5, 3, 2, errors=1)).items()
    assert found[0] == ("0", "tip")
    assert (found[1].predictions, found[1].errors) == (10, 1)


def test_the_rate_of_all_workers_is_added_up_and_quantiles_are_of_what_came_lately() -> None:
    traffic = Traffic()
    for worker in ("0", "1"):
        traffic.take(text(worker, 1_000, 0, 0), 0.0)
        traffic.take(text(worker, 1_000, 100, 0, errors=10), 10.0)
    now = traffic.of("tip", 10.0)
    assert now["rate"] == pytest.approx(20.0)
    assert now["errors"] == pytest.approx(0.1)
    assert 1_000 < now["p50"] < now["p99"] <= 10_000


def test_a_worker_that_starts_again_counts_from_nothing() -> None:
    traffic = Traffic()
    traffic.take(text("0", 900, 0, 0), 0.0)
    traffic.take(text("0", 10, 0, 0), 1.0)
    traffic.take(text("0", 20, 0, 0), 2.0)
    assert traffic.of("tip", 2.0)["rate"] == pytest.approx(10.0)


def test_what_is_not_known_is_left_out_and_old_traffic_is_no_traffic() -> None:
    traffic = Traffic()
    assert traffic.of("tip", 0.0) == {}
    traffic.take(text("0", 1, 0, 0), 0.0)
    assert traffic.of("tip", 0.0) == {"rate": 0.0}
    traffic.take(text("0", 50, 0, 0), 1.0)
    assert traffic.of("tip", 60.0) == {"rate": 0.0}


def test_a_quantile_above_the_last_bound_is_that_bound() -> None:
    assert quantile({0.001: 0.0, float("inf"): 10.0}, 0.99) == 1_000
