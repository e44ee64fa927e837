"""`metrics.csv`: always whole, and equal after interruptions."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_imitation.training.loggers import MetricsCSV


def read(path: Path) -> list[dict[str, str]]:
    with (path / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def log(logger: MetricsCSV, *rows: dict[str, float], start: int = 0) -> None:
    for step, row in enumerate(rows, start):
        logger.log_metrics(row, step)


def test_later_rows_and_columns_are_added(tmp_path):
    logger = MetricsCSV(str(tmp_path))
    log(logger, {"a": 1.0}, {"a": 0.1 + 0.2})
    logger.save()
    log(logger, {"b, c": float("nan")}, {"a": -1e-300, "d": float("inf")}, start=2)
    logger.finalize("success")
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        'step,a,"b, c",d',
        "0,1.0,,",
        "1,0.30000000000000004,,",
        "2,,nan,",
        "3,-1e-300,,inf",
    ]


def test_rows_are_written_at_latest_after_100(tmp_path):
    logger = MetricsCSV(str(tmp_path / "new" / "run"))
    logger.save()
    logger.log_hyperparams({"a": 1})
    assert logger.flush() == 0
    assert not (tmp_path / "new").exists()
    log(logger, *[{"a": float(i)} for i in range(150)])
    assert len(read(tmp_path / "new" / "run")) == 100
    assert logger.flush() == logger.flush() == 150
    assert [row["a"] for row in read(tmp_path / "new" / "run")] == [str(float(i)) for i in range(150)]


def test_rewind_drops_later_rows_and_their_columns(tmp_path):
    logger = MetricsCSV(str(tmp_path))
    log(logger, {"a": 1.0}, {"a": 2.0, "b": 3.0})
    assert logger.flush() == 2
    log(logger, {"c": 4.0}, start=2)
    logger.flush()
    again = MetricsCSV(str(tmp_path))
    again.rewind(2)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,a,b", "0,1.0,", "1,2.0,3.0"]
    log(again, {"d": 5.0}, start=2)
    assert again.flush() == 3
    assert (tmp_path / "metrics.csv").read_text().splitlines()[0] == "step,a,b,d"


def test_rewind_to_zero_rows_removes_the_file(tmp_path):
    logger = MetricsCSV(str(tmp_path))
    logger.rewind(3)  # the file does not exist
    log(logger, {"a": 1.0})
    logger.flush()
    log(logger, {"a": 2.0})  # pending rows belong to the interrupted run
    logger.rewind(0)
    assert not (tmp_path / "metrics.csv").exists()
    log(logger, {"b": 1.0})
    assert logger.flush() == 1
    assert list(read(tmp_path)[0]) == ["step", "b"]


def test_second_logger_in_directory_appends_rows(tmp_path):
    """A test in the directory of a run keeps the run's log."""
    log(fit := MetricsCSV(str(tmp_path)), {"train/loss": 1.0}, {"val/loss": 2.0})
    fit.finalize("success")
    log(test := MetricsCSV(str(tmp_path)), {"test/return": 3.0}, start=9)
    assert test.flush() == 3
    assert [row["step"] for row in read(tmp_path)] == ["0", "1", "9"]
    assert read(tmp_path)[0] == {"step": "0", "train/loss": "1.0", "val/loss": "", "test/return": ""}


ROWS = st.lists(
    st.dictionaries(st.sampled_from(["loss", "return", "a,b", "ü\n"]), st.floats(width=32), min_size=1),
    min_size=1,
    max_size=12,
)


@pytest.mark.integration
@settings(deadline=None, max_examples=60)
@given(rows=ROWS, data=st.data())
def test_interrupted_log_equals_uninterrupted_one(rows, data, tmp_path_factory):
    """A run that stops some rows after a checkpoint and resumes writes the same bytes."""
    checkpoint = data.draw(st.integers(0, len(rows)))
    death = data.draw(st.integers(checkpoint, len(rows)))
    one, other = (tmp_path_factory.mktemp(name) for name in ("one", "other"))

    def play(logger: MetricsCSV, first: int, last: int) -> None:
        for step in range(first, last):
            logger.log_metrics(rows[step], step)
            if step + 1 == checkpoint:
                assert logger.flush() == checkpoint

    logger = MetricsCSV(str(one))
    play(logger, 0, len(rows))
    logger.flush()
    play(dying := MetricsCSV(str(other)), 0, death)
    if data.draw(st.booleans()):
        dying.flush()
    resumed = MetricsCSV(str(other))
    resumed.rewind(checkpoint)
    play(resumed, checkpoint, len(rows))
    assert resumed.flush() == len(rows)
    assert (other / "metrics.csv").read_bytes() == (one / "metrics.csv").read_bytes()


def test_values_that_are_not_numbers_are_refused(tmp_path):
    with pytest.raises((TypeError, ValueError)):
        MetricsCSV(str(tmp_path)).log_metrics({"a": "text"}, 0)
