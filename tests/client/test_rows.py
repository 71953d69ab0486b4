import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from flyball.client.rows import name_of, records
from flyball.kernel.errors import InvalidError

ROWS = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


@pytest.mark.parametrize(
    "rows", [ROWS, iter(ROWS), pl.DataFrame(ROWS), pd.DataFrame(ROWS), pa.Table.from_pylist(ROWS)], ids=type
)
def test_rows_come_as_dicts_or_as_a_table(rows: object) -> None:
    assert records(rows) == ROWS


def test_one_mapping_is_one_row() -> None:
    assert records({"a": 1}) == [{"a": 1}]


def test_rows_that_are_no_mappings_are_refused() -> None:
    with pytest.raises(InvalidError, match="not ints") as caught:
        records([1, 2])
    assert caught.value.code == "bad_rows"


def test_a_declaration_stands_for_its_name() -> None:
    class Trips:
        pass

    class Service:
        name = "tip"

    def train() -> None: ...

    assert [name_of("x"), name_of(Trips), name_of(Service()), name_of(train)] == ["x", "Trips", "tip", "train"]
    with pytest.raises(InvalidError):
        name_of(3)  # type: ignore[arg-type]
