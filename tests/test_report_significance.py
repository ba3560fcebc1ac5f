"""Wilcoxon tests: what the thesis prints, from what it prints; by hand; from records."""

import math
from pathlib import Path

import pytest
from report_runs import write_run

from scripts import report
from setexp.report.papers import load_printed
from setexp.report.significance import printed, wilcoxon

ROWS = ("GIN-FSPool", "GIN-Base")


def test_the_thesis_tests_follow_from_its_tables() -> None:
    """Of means with one decimal; printed: W = 7, p = 0.07; W = 9, p = 0.11; 6 of 9 each."""
    accuracy = printed([load_printed(f"thesis/5.10/{k}") for k in ("social", "bio")], *ROWS)
    assert (accuracy.pairs, accuracy.won, accuracy.statistic) == (9, 6, 6.5)
    assert round(accuracy.p, 2) in (0.06, 0.07)
    epochs = printed([load_printed(f"thesis/5.10/{k}-epochs") for k in ("social", "bio")], *ROWS)
    assert (epochs.pairs, epochs.won, epochs.statistic) == (9, 6, 9)
    assert round(epochs.p, 2) == 0.11


def test_ranks_by_hand() -> None:
    """Gains 3, -1, 2, and an equal pair: ranks 3, 1, 2; the negative ones sum to 1."""
    found = wilcoxon([5, 1, 4, 7], [2, 2, 2, 7], lower=False, exact=True)
    assert (found.pairs, found.won, found.statistic) == (4, 2, 1)
    assert (
        found.p == 0.5
    )  # of 8 ways to give 3 ranks signs, 4 have a sum of at most 1, or 5 and more
    reverse = wilcoxon([5, 1, 4, 7], [2, 2, 2, 7], lower=True, exact=True)
    assert (reverse.won, reverse.statistic, reverse.p) == (1, 1, found.p)
    assert math.isnan(wilcoxon([], [], lower=True, exact=True).p)
    assert math.isnan(wilcoxon([1.0], [1.0], lower=True, exact=False).p)
    two = wilcoxon([2, 4], [1, 2], lower=False, exact=True)
    assert two.p == 0.5, "two pairs cannot say more"
    won = wilcoxon([1, 2, 3, 4, 5], [0] * 5, lower=False, exact=True)
    assert won.p == pytest.approx(2 / 2**5), "of 32 signs, all plus and all minus"
    roughly = wilcoxon([1, 2, 3, 4, 5], [0] * 5, lower=False, exact=False)
    z = 7.5 / math.sqrt(5 * 6 * 11 / 24)
    assert roughly.p == pytest.approx(math.erfc(z / math.sqrt(2)))


def test_records_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("MUTAG", "PROTEINS", "PTC_MR")
    for name, gain in zip(names, (0.02, 0.01, -0.03), strict=True):
        for seed in (0, 1):
            for axes, value in (({"readout@encoder.readout": "fspool"}, 0.7 + gain), ({}, 0.7)):
                write_run(
                    tmp_path, "graphs_bio", {"dataset.name": name, **axes}, seed,
                    {"accuracy": value + seed / 100}, source="real",
                )  # fmt: skip
    places = [f"--outputs={tmp_path}", f"--results={tmp_path}/none"]
    assert report.main(["wilcoxon", *ROWS, "thesis/5.10/bio", "thesis/5.10/social", *places]) == 0
    paper, ours = capsys.readouterr().out.splitlines()
    assert paper.startswith("from printed numbers: better in 6 of 9 columns, W = 6.5")
    assert ours == "ours: better in 2 of 3 columns, W = 3, p = 1.000; runs behind a number: 2"


def test_a_row_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["wilcoxon", "GIN", "GIN-Base", "thesis/5.10/bio"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: GIN: table thesis/5.10/bio has no such row; it has ")
    assert "GIN-FSPool" in line


def test_a_quoted_row_has_print_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    axes = {"dataset.name": "MUTAG", "readout@encoder.readout": "fspool"}
    write_run(tmp_path, "graphs_bio", axes, 0, {"accuracy": 0.8}, source="real")
    places = [f"--outputs={tmp_path}", f"--results={tmp_path}/none"]
    rows = ("GIN-FSPool", "GIN-Base* [105]")
    assert report.main(["wilcoxon", *rows, "thesis/5.10/bio", *places]) == 0
    paper, ours = capsys.readouterr().out.splitlines()
    assert paper.startswith("from printed numbers: better in 0 of 4 columns")
    assert ours == "ours: better in 0 of 0 columns"


@pytest.mark.parametrize(
    ("rows", "tables"),
    [
        (("FSPool", "RN"), ["thesis/5.9"]),
        (("Num. graphs", "Num. classes"), ["thesis/5.10/bio-stats"]),
        (ROWS, ["thesis/5.10/bio", "thesis/5.10/bio-epochs"]),
    ],
)
def test_columns_without_one_direction_are_refused(
    rows: tuple[str, str], tables: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(["wilcoxon", *rows, *tables]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {' '.join(tables)}: units ")
    assert line.endswith("ranks need one unit and one direction, choose others")
