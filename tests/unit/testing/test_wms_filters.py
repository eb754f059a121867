"""The subset of MongoDB's filters."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ewms.testing.wms.filters import BadFilter, matches, project

DOCUMENT: dict[str, Any] = {
    "uuid": "TF-1",
    "phase": "condor-submit",
    "cluster_id": 7,
    "collector": None,
    "flag": True,
    "config": {"n_cores": 2, "name": "x"},
    "tags": ["a", "b"],
    "log": [{"phase": "p", "ok": True}, {"phase": "q", "ok": False}],
}


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"uuid": "TF-1", "phase": "condor-submit"},
        {"cluster_id": {"$eq": 7}},
        {"cluster_id": {"$gt": 6, "$lt": 8, "$gte": 7, "$lte": 7}},
        {"phase": {"$ne": "condor-complete"}},
        {"missing": {"$ne": 1}},
        {"phase": {"$in": ["x", "condor-submit"]}},
        {"phase": {"$nin": ["x"]}},
        {"missing": {"$nin": ["x"]}},
        {"uuid": {"$exists": True}, "missing": {"$exists": False}, "collector": {"$exists": True}},
        {"collector": None, "missing": None},
        {"config.n_cores": 2},
        {"config": {"n_cores": 2, "name": "x"}},
        {"tags": "a"},
        {"tags": ["a", "b"]},
        {"log.ok": False},
        {"log": {"$elemMatch": {"phase": "q", "ok": False}}},
        {"$or": [{"uuid": "no"}, {"cluster_id": 7}]},
        {"$and": [{"uuid": "TF-1"}, {"$nor": [{"uuid": "no"}]}]},
        {"cluster_id": {"$not": {"$gt": 7}}},
        {"missing": {"$not": {"$gt": 7}}},
    ],
)
def test_matches(query: dict[str, Any]) -> None:
    assert matches(DOCUMENT, query)


@pytest.mark.parametrize(
    "query",
    [
        {"uuid": "TF-2"},
        {"uuid": "TF-1", "phase": "x"},
        {"flag": 1},
        {"cluster_id": "7"},
        {"cluster_id": {"$gt": "6"}},
        {"cluster_id": {"$gt": 7}},
        {"phase": {"$ne": "condor-submit"}},
        {"missing": {"$in": ["x"]}},
        {"missing": {"$gt": 1}},
        {"cluster_id": None},
        {"config.n_cores.deeper": 2},
        {"log": {"$elemMatch": {"phase": "q", "ok": True}}},
        {"$nor": [{"uuid": "TF-1"}]},
        {"$or": [{"uuid": "no"}]},
    ],
)
def test_does_not_match(query: dict[str, Any]) -> None:
    assert not matches(DOCUMENT, query)


@pytest.mark.parametrize(
    "query",
    [
        {"$where": "1"},
        {"a": {"$regexx": "1"}},
        {"$or": []},
        {"$or": {"a": 1}},
        {"$and": [1]},
        {"a": {"$in": "abc"}},
        {"a": {"$not": 3}},
    ],
)
def test_what_is_not_in_the_subset_is_said(query: dict[str, Any]) -> None:
    with pytest.raises(BadFilter):
        matches(DOCUMENT, query)


def test_projection() -> None:
    assert project(DOCUMENT, ["uuid", "config.name", "missing"]) == {"uuid": "TF-1", "config": {"name": "x"}}
    assert project(DOCUMENT, []) == DOCUMENT


scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b"])
conditions = st.one_of(
    scalars,
    st.fixed_dictionaries({"$in": st.lists(scalars, max_size=3)}),
    st.fixed_dictionaries({"$gt": scalars}),
    st.fixed_dictionaries({"$exists": st.booleans()}),
)


@given(st.dictionaries(st.sampled_from("xyz"), scalars), conditions)
def test_a_filter_and_its_negations(document: dict[str, Any], condition: Any) -> None:
    query = {"x": condition}
    is_match = matches(document, query)
    assert matches(document, {"$nor": [query]}) is not is_match
    assert matches(document, {"$and": [query, query]}) is is_match
    if isinstance(condition, dict):
        assert matches(document, {"x": {"$not": condition}}) is not is_match
    else:
        assert matches(document, {"x": {"$ne": condition}}) is not is_match
