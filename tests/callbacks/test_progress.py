"""What the bars show."""

from __future__ import annotations

import re

from suites import arguments

from lit_imitation.cli import main


def test_rounds_show_training_return_and_rate_but_do_not_log_the_rate(tmp_path, capsys):
    more = ["--trainer.max_epochs=1", "--data.steps_per_round=64"]
    main(arguments("ppo-discrete", tmp_path, *more))
    bar = capsys.readouterr().out
    shown = re.findall(r" 3/3 \[.*train_return=([\d.]+), steps/s=([\d,]+)", bar)
    assert shown, bar
    header, *rows = [line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines()]
    assert not any("steps/s" in name or "rate" in name for name in header)
    returns = [row[header.index("train/return_mean")] for row in rows]
    assert float(shown[-1][0]) == round(float([value for value in returns if value][-1]), 1)
