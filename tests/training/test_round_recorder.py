"""`RoundRecorder`: what a learner saw, in files that offline learning reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_imitation import OfflineDataModule
from lit_imitation.cli import main
from lit_imitation.errors import ConfigError
from lit_imitation.rollout import Round
from lit_imitation.training.round_recorder import in_order_of_time, recorded
from lit_imitation.transitions import Transitions

RUN = [
    "fit", "--config=ppo/cartpole", "--data.env_steps=1600", "--data.num_envs=4", "--data.steps_per_round=100",
    "--data.rounds_per_epoch=2", "--data.eval_episodes=4", "--data.test_episodes=4", "--trainer.accelerator=cpu",
    "--trainer.callbacks+=lit_imitation.RoundRecorder",
]  # fmt: skip


def make_rounds() -> list[Round]:
    """Two rounds of two steps in two environments; the observation is 10 · environment + step."""
    rounds = []
    for first in (0, 2):
        number = torch.tensor([[first, 10 + first], [first + 1, 11 + first]])
        over = number == 11
        rollout = Transitions(
            observation=number[..., None].float(), action=number, reward=number.float(), terminated=over,
            truncated=torch.zeros_like(over), next_observation=number[..., None] + 0.5, batch_size=[2, 2],
        )  # fmt: skip
        rounds.append(Round(rollout, number != 12, []))  # after its end an environment was only reset
    return rounds


def test_environments_follow_one_another_and_running_episodes_are_cut_off():
    record = in_order_of_time(make_rounds())
    assert record.observation.flatten().tolist() == [0, 1, 2, 3, 10, 11, 13]
    assert record.action.tolist() == [0, 1, 2, 3, 10, 11, 13]
    assert record.next_observation.flatten().tolist() == [0.5, 1.5, 2.5, 3.5, 10.5, 11.5, 13.5]
    assert record.terminated.nonzero().flatten().tolist() == [5]
    assert record.truncated.nonzero().flatten().tolist() == [3, 6]


@pytest.mark.integration
def test_everything_that_was_learned_from_is_read_back(tmp_path, capsys):
    run = tmp_path / "run"
    main([*RUN, f"--trainer.default_root_dir={run}"])
    demonstrations, _ = recorded(run)
    transitions = demonstrations.transitions
    assert len(list((run / "rounds").iterdir())) == 2
    assert len(transitions) == int(torch.load(run / "checkpoints" / "last.ckpt")["env_steps"])
    assert transitions.reward.eq(1).all()
    inside = ~transitions.done
    following = transitions.observation[1:][inside[:-1]]
    torch.testing.assert_close(transitions.next_observation[:-1][inside[:-1]], following)
    capsys.readouterr()
    main(["collect", f"--replay={run}", f"--out={tmp_path / 'part.npz'}", "--steps=500"])
    with np.load(tmp_path / "part.npz") as file:
        assert 500 <= len(file["actions"]) < 500 + 200
        np.testing.assert_array_equal(file["observations"], transitions.observation[: len(file["actions"])])
    assert "transitions of a learner" in capsys.readouterr().out
    data = OfflineDataModule("CartPole-v1", demonstrations=str(run / "rounds"), eval_episodes=0)
    assert len(data.load().transitions) == len(transitions)


@pytest.mark.integration
def test_recorder_and_replay_name_what_is_missing(tmp_path, capsys):
    with pytest.raises(ConfigError, match="no rounds were recorded; train with"):
        recorded(tmp_path)
    with pytest.raises(SystemExit):
        main(["collect", f"--replay={tmp_path}", "--env_id=CartPole-v1", f"--out={tmp_path / 'a.npz'}"])
    assert "give either --env_id" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["collect", "--env_id=CartPole-v1", f"--out={tmp_path / 'a.npz'}", "--steps=9"])
    assert "--steps counts the transitions of a learner" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["collect", f"--replay={tmp_path}", f"--out={tmp_path / 'a.npz'}", "--steps=0"])
    assert "--steps is 0; it must be at least 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(
            [
                "fit", "--config=bc/cartpole", "--trainer.callbacks+=lit_imitation.RoundRecorder",
                "--trainer.max_epochs=1", f"--trainer.default_root_dir={tmp_path / 'bc'}",
            ]
        )  # fmt: skip
    assert "RoundRecorder records rounds, but BC plays none" in capsys.readouterr().err
