"""Rows on their way from the warehouse into a matrix."""

from pathlib import Path

import duckdb
import numpy as np
import pytest

from ml import data, inspection, rows
from ml.trainers import Task

ROWS = 60_000
FEATURES = tuple(f"f{index}" for index in range(40))


@pytest.fixture
def described() -> data.Data:
    columns = ", ".join(FEATURES)
    relation = (
        f"(select {columns}, (i % 3)::double as label_value, hash(i) as row_hash_, "
        "hash(i + 1) as row_digest_, timestamp '2025-01-01' as label_start_at, "
        "timestamp '2025-01-02' as label_end_at, 7::ubigint as series_, 's' || i as key "
        "from dataset)"
    )
    return data.Data(relation, FEATURES, Task("regression"), "DOUBLE", ("key",), {}, {})


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "tapehouse.duckdb"
    columns = ", ".join(
        f"case when random() < 0.1 then null when random() < 0.01 then 'inf'::float "
        f"else random()::float end as {name}"
        for name in FEATURES
    )
    with duckdb.connect(str(path)) as connection:
        connection.execute("select setseed(0.5)")
        connection.execute(f"create table dataset as select i, {columns} from range({ROWS}) r(i)")
    return path


def test_rows_come_in_the_order_of_their_hash_whole_and_with_their_own_keys(
    database: Path, described: data.Data
) -> None:
    with duckdb.connect(str(database)) as connection:
        (found,) = rows.fetch(
            connection, described, "label_value < 2", with_times=True, with_keys=True
        )
        expected = connection.execute(
            f"select {', '.join(FEATURES)}, i from dataset where i % 3 < 2 order by hash(i)"
        ).fetchnumpy()
    matrix = np.column_stack([np.ma.filled(expected[name], np.nan) for name in FEATURES])
    assert np.array_equal(found.features, matrix, equal_nan=True)
    assert found.labels.tolist() == (expected["i"] % 3).tolist()
    assert found.keys["key"].to_pylist() == [f"s{i}" for i in expected["i"]]
    assert set((found.end - found.start).tolist()) == {86_400_000_000}
    assert set(found.series.tolist()) == {7}


def test_parts_are_read_at_once_and_a_row_belongs_to_the_first_that_it_meets(
    database: Path, described: data.Data
) -> None:
    with duckdb.connect(str(database)) as connection:
        both = rows.fetch(connection, described, "label_value < 2", "label_value > 0")
        one = [
            rows.fetch(connection, described, f"label_value {where}")[0] for where in ("< 2", "= 2")
        ]
        digests = connection.execute(
            "select sum(hash(i + 1)::hugeint) from dataset group by i % 3 < 2 order by i % 3 < 2"
        ).fetchall()
    for found, expected in zip(both, one, strict=True):
        assert np.array_equal(found.features, expected.features, equal_nan=True)
        assert np.array_equal(found.labels, expected.labels)
    assert [found.digest for found in both[::-1]] == [digest for (digest,) in digests]


def test_what_was_read_does_not_stay_in_memory_and_the_limit_does(
    database: Path, described: data.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = "select sum(memory_usage_bytes) from duckdb_memory() where tag = 'BASE_TABLE'"
    found = {}
    for bound in (1_000_000, 10**12):
        monkeypatch.setattr(rows, "CACHE_BYTES", bound)
        monkeypatch.setattr(rows, "BATCH_ROWS", 2_000)
        with duckdb.connect(str(database), config={"memory_limit": "1GiB"}) as connection:
            rows.fetch(connection, described, "true")
            ((found[bound],),) = connection.execute(held).fetchall()
            limit = connection.execute("select current_setting('memory_limit')").fetchall()
        assert limit == [("1.0 GiB",)]
    assert found[1_000_000] < found[10**12] / 2


def test_statistics_of_columns_are_those_of_sql(database: Path, described: data.Data) -> None:
    with duckdb.connect(str(database)) as connection:
        (fetched,) = rows.fetch(connection, described, "true")
        expected = connection.execute(
            """
            select min(x), max(x), avg(x), median(x), stddev_samp(x), count(*) - count(x)
            from (
                select input, case when isfinite(value) then value::double end as x
                from (from dataset unpivot include nulls (value for input in (columns('f.*'))))
            )
            group by input order by substr(input, 2)::integer
            """
        ).fetchall()
    found = inspection.statistics(fetched.features)
    assert [figures == pytest.approx(list(row), rel=1e-9) for figures, row in
        zip(found, expected, strict=True)] == [True] * len(FEATURES)  # fmt: skip
    assert inspection.statistics(np.full((3, 1), np.nan, dtype=np.float32)) == [[None] * 5 + [3]]
