import pytest

from flyball.kernel import errors
from flyball.kernel.errors import ErrorKind, FlyballError, InternalError, NotFoundError, did_you_mean, from_data


def leaves() -> list[type[FlyballError]]:
    return FlyballError.__subclasses__()


def test_every_kind_has_exactly_one_error_class() -> None:
    assert sorted(cls.kind for cls in leaves()) == sorted(ErrorKind)


@pytest.mark.parametrize("cls", leaves())
def test_an_error_survives_its_trip_as_data(cls: type[FlyballError]) -> None:
    error = cls("no model 'tpi'", code="model_not_found", hint="flyball status", details={"model": "tpi"})
    again = from_data(error.to_data())
    assert type(again) is cls
    assert again.to_data() == error.to_data()


def test_an_unknown_kind_becomes_an_internal_error() -> None:
    error = from_data({"kind": "cosmic", "message": "a ray", "code": "ray"})
    assert type(error) is InternalError
    assert (error.message, error.code) == ("a ray", "ray")


def test_an_error_without_a_code_has_its_kind_as_code() -> None:
    assert NotFoundError("gone").code == "not_found"


def test_the_hint_stands_on_a_line_of_its_own() -> None:
    assert str(NotFoundError("gone", hint="flyball up")) == "gone\n  flyball up"
    assert str(NotFoundError("gone")) == "gone"


def test_did_you_mean_names_the_nearest_or_lists_what_there_is() -> None:
    assert did_you_mean("fair", ["fare", "tips"]) == "did you mean 'fare'?"
    assert did_you_mean("zzz", ["tips", "fare"]) == "there is: fare, tips"
    assert did_you_mean("zzz", []) == "there are none yet"
    assert did_you_mean("zzz", [f"c{i:02}" for i in range(20)]).endswith("c11, …")


def test_the_docstring_of_the_tree_names_every_class() -> None:
    assert errors.__doc__ is not None
    assert all(cls.__name__ in errors.__doc__ for cls in leaves())
