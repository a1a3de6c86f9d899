"""What the demo prints."""

import pytest

from headwater.demo import RANKING_FIGURES, tell_ranking


def test_the_ranking_is_a_table_of_the_rows_that_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"candidate": 0.5, "popularity-10m": 0.25, "merged": 1.0}
    metrics = {f"{row}/{figure}": value for row, value in rows.items() for figure in RANKING_FIGURES}
    tell_ranking({**metrics, "live/mrr": 0.1})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-4:] == list(RANKING_FIGURES)
    assert [line.split()[-1] for line in lines[1:]] == ["0.250", "0.500"]
