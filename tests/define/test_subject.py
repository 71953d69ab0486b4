from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from flyball.define.spec import ColumnSpec
from flyball.define.subject import Matcher, digests_of, parse_column, parse_subject
from flyball.kernel.errors import InvalidError
from flyball.kernel.ids import canonical


def seal(value: Any) -> str:
    return "pii:" + hashlib.sha256(canonical(value)).hexdigest()


def matcher(text: str, **column: Any) -> Matcher:
    spec = ColumnSpec(name="c", **column)
    return Matcher(spec, digests_of(text, spec, seal), seal)


def test_a_subject_is_a_column_and_a_value_which_may_hold_anything() -> None:
    assert parse_subject("Payments.card=4111=x.y") == ("Payments", "card", "4111=x.y")
    assert parse_column("Payments.card") == ("Payments", "card")
    for bad in ("Payments=4", "Payments.card", "Payments.card=", ".card=4"):
        with pytest.raises(InvalidError) as caught:
            parse_subject(bad)
        assert caught.value.code == "bad_subject"


@pytest.mark.parametrize(
    ("column", "text", "physical", "raw"),
    [
        ({"type": "string"}, "x", "x", ["x"]),
        ({"type": "integer"}, "7", 7, [7, "7", 7.0]),
        ({"type": "decimal", "scale": 2}, "7.50", 750, ["7.5", 7.5, "7.50"]),
        ({"type": "decimal", "scale": 2}, "8", 800, ["8.00", 8, 8.0]),
        ({"type": "boolean"}, "True", True, [True, "true"]),
        ({"type": "timestamp"}, "2026-01-01T00:00:00Z", 1_767_225_600_000_000, ["2026-01-01T00:00:00Z"]),
    ],
)
def test_a_value_is_found_in_each_form_that_it_takes(
    column: dict[str, Any], text: str, physical: Any, raw: list[Any]
) -> None:
    found = matcher(text, **column)
    assert found.physical([physical, None]) == {physical}
    assert all(found.raw(value) and found.raw(seal(value)) for value in raw)
    assert not any(found.raw(value) for value in (None, "other", seal("other"), [1]))


def test_a_value_that_is_none_of_its_column_is_refused_without_being_named() -> None:
    for column in ({"type": "integer"}, {"type": "decimal"}, {"type": "boolean"}, {"type": "timestamp"}):
        with pytest.raises(InvalidError) as caught:
            matcher("zebra", **column)
        assert caught.value.code == "bad_value"
        assert "zebra" not in str(caught.value)


def test_a_row_that_was_never_parsed_is_searched_for_the_value_as_a_word() -> None:
    found = matcher("4111", type="string")
    assert found.inside('x,4111,"2.00"')
    assert found.inside({"raw": ["a", {"b": "4111"}]})
    assert not found.inside("x,41112")


@pytest.mark.parametrize("name", ["Jane Doe", "Doe, Jane", "jane+m@doe.org", "(555) 123-4567", "José  Ñ."])
def test_a_value_of_several_words_is_found_within_a_text(name: str) -> None:
    found = matcher(name, type="string")
    for text in (f'{{"id":"3","name":"{name}","amount":5', f"2,{name},5,extra", json.dumps([name])[:-1]):
        assert found.inside(text)
        assert not found.inside(text.replace(name[-5:], "x") if name in text else "x")


def test_a_number_is_found_in_json_that_cannot_be_read() -> None:
    assert matcher("4111", type="integer").inside('{"card":4111')
    assert not matcher("411", type="integer").inside('{"card":4111')
