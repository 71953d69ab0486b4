"""An erasure on a platform of real processes: by the command line, and with everything killed in the middle."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from flyball.client import Client
from flyball.client.project import apply, pack
from tests.cli.run_cli import flyball
from tests.scenarios.live import LivePlatform, eventually
from tests.scenarios.test_erasure import MARKER, PROJECT, holds, row

pytestmark = pytest.mark.slow
OTHER = "MARKER-5500-8R"


def fill(client: Client) -> str:
    now = time.time_ns() // 1_000
    rows: list[dict[str, Any]] = []
    for place, card in enumerate((MARKER, OTHER, "a")):
        rows += [row(place * 100 + n, card, (n + 1) * 60_000_000, now=now) for n in range(5)]
        rows.append(row(place * 100 + 50, card, 1, "-1.00", now=now))
    assert client.push("Payments", rows)["accepted"] == 15

    def asked() -> str:
        reply = client.predict("look", id="r", card=MARKER, shop="s1", amount="1.00")[0]
        return str(reply["prediction_id"]) if reply.get("features") == "fresh" else ""

    return eventually(asked, "a prediction")


def test_the_command_erases_and_a_killed_platform_completes_what_was_asked(tmp_path: Path) -> None:
    with LivePlatform(tmp_path / "state") as platform:
        platform.start()
        with platform.client() as client:
            apply(client, pack(PROJECT))
            eventually(lambda: any(s["name"] == "Payments" for s in client.sources()), "the plan")
            prediction = fill(client)
            place = ("--state", platform.layout.root)
            counted = flyball("erase", f"Payments.card={MARKER}", "--dry-run", "--json", *place)
            assert counted.json["targets"][0] == {
                "source": "Payments",
                "column": "card",
                "rows": 5,
                "quarantined": 1,
            }
            done = flyball("erase", f"Payments.card={MARKER}", "--yes", *place)
            assert done.status == 0, done.err
            assert "is gone" in done.out
            assert MARKER not in done.out + done.err
            assert client.prediction(prediction)["prediction"]["inputs"] == {}
            assert [path for path in holds(platform.layout.root, MARKER) if not path.endswith(".mdb")] == []
            assert holds(platform.layout.root, OTHER)
            asked = client.erase("Payments", "card", OTHER)
        platform.kill()
        platform.start()
        with platform.client() as client:
            eventually(lambda: client.erasure(asked["erasure"])["step"] == "done", "the erasure after the kill")

            def fresh() -> dict[str, Any]:
                reply = client.predict("look", id="r", card="a", shop="s1", amount="1.00")[0]
                return dict(reply["values"]) if reply["features"] == "fresh" else {}

            assert eventually(fresh, "an answer from online state")["Card.seen"] == 5.0
            assert "erasure" in flyball("status", "--state", platform.layout.root).out
        assert platform.stop() == 0
        assert holds(platform.layout.root, MARKER) == []
        assert holds(platform.layout.root, OTHER) == []


def test_a_platform_whose_online_folder_is_taken_away_builds_it_again(tmp_path: Path) -> None:
    with LivePlatform(tmp_path / "state") as platform:
        platform.start()
        with platform.client() as client:
            apply(client, pack(PROJECT))
            eventually(lambda: any(s["name"] == "Payments" for s in client.sources()), "the plan")
            fill(client)
            shutil.rmtree(platform.layout.online)

            def seen(state: str) -> bool:
                reply = client.predict("look", id="r", card="a", shop="s1", amount="1.00")[0]
                return bool(reply["features"] == state and (state == "default" or reply["values"]["Card.seen"] == 5.0))

            eventually(lambda: seen("default"), "defaults")
            eventually(lambda: seen("fresh"), "fresh features")
        assert platform.stop() == 0
