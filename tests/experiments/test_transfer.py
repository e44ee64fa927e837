"""The study of transfer on small settings, from the expert to the page."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from study_checks import resumes, rows

from experiments.__main__ import main
from experiments.studies.common import quiet
from experiments.studies.transfer import AIRLS, IMITATORS, QUICK, Settings, learners, planning, run
from experiments.studies.transfer.worlds import GRID, WORLDS, maze_grid
from lit_imitation.envs import make, point_mass_maze
from lit_imitation.errors import ConfigError
from lit_imitation.rewards import load_reward
from lit_imitation.rewards.base import RewardModel
from lit_imitation.rollout import Round, Steps
from lit_imitation.transitions import Transitions

MAZE = dataclasses.replace(
    QUICK.tasks[0],
    seeds={"airl_state": 2, "airl_state_action": 1, "gail": 1, "true": 2},
    steps={
        "discriminator_steps": 2,
        "discriminator_batch_size": 128,
        "discriminator_learning_rate": 1e-3,
        "replay_rounds": 2,
    },
    airl={"hidden_sizes": [8], "potential_hidden_sizes": [8]},
)
TINY = Settings(tasks=(MAZE,))
TRUE = "RL, true reward", "random policy"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    return out, run(out, TINY)


def result(out, name):
    (file,) = (out / "runs").glob(f"maze-{name}*")
    return dict(np.load(file))


def test_all_files_are_written(study):
    out, summary = study
    for name in ("transfer", "maze_rewards"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (out / f"{name}.svg").read_text()
    assert json.loads((out / "transfer.json").read_text()) == json.loads(json.dumps(summary))
    page = (out / "transfer.md").read_text()
    assert all(f"]({name}.{kind})" in page for name in ("transfer", "maze_rewards") for kind in ("png", "svg", "csv"))
    rows = summary["tasks"]["maze"]["rows"]
    assert f"{rows['airl_state']['mean']:,.1f} [" in page
    assert f"| {rows['gail']['mean']:,.1f} | 1 |" in page  # one seed has no interval
    assert "nan" not in page


def test_the_page_matches_the_json(study):
    out, summary = study
    maze = summary["tasks"]["maze"]
    tables: list[list[list[str]]] = [[]]
    for line in (out / "transfer.md").read_text().splitlines():
        if line.startswith("|"):
            tables[-1].append([cell.strip() for cell in line.split("|")[1:-1]])
        elif tables[-1]:
            tables.append([])
    returns, planned, quality, _ = (table[2:] for table in tables if table)

    def numbers(row, first):
        return [float(cell.split()[0].rstrip("%").replace(",", "")) for cell in row[first:] if cell]

    for i, row in enumerate(("airl_state", "airl_state_action", "gail", "true")):
        entry = maze["rows"][row]
        expected = [entry["mean"], len(entry["seeds"]), 100 * entry["share_of_gap"]["mean"], entry["paper"]]
        assert numbers(returns[i], 1) == pytest.approx(expected, abs=0.51)
        assert numbers(planned[i], 1) == pytest.approx([maze["planned"][row]["mean"]], abs=0.051)
        if row != "true":
            entry = maze["quality"][row]
            expected = [maze["imitation"][row]["mean"], entry["correlation"]["mean"], entry["epic"]["mean"]]
            assert numbers(quality[i], 2) == pytest.approx(expected, abs=0.051)
    assert [row[0] for row in returns] == ["AIRL, r(s)", "AIRL, r(s, a)", "GAIL, policy as it is", *TRUE]
    assert [row[0] for row in planned] == ["AIRL, r(s)", "AIRL, r(s, a)", "GAIL", "the true reward"]
    assert [row[1] for row in quality] == ["AIRL, r(s)", "AIRL, r(s, a)", "GAIL"]


def test_rows_are_true_returns_in_the_second_environment(study):
    out, summary = study
    maze = summary["tasks"]["maze"]
    for row, name in (
        ("airl_state", "airl_state-transfer-seed{}"),
        ("airl_state_action", "airl_state_action-transfer-seed{}"),
        ("gail", "gail-seed{}"),
        ("true", "true-seed{}"),
    ):
        values = [result(out, name.format(seed))["returns"].mean() for seed in range(MAZE.seeds[row])]
        assert maze["rows"][row]["seeds"] == pytest.approx(values)
        share = (np.mean(values) - maze["random_return"]) / (maze["rows"]["true"]["mean"] - maze["random_return"])
        assert maze["rows"][row]["share_of_gap"]["mean"] == pytest.approx(share)
    assert maze["rows"]["true"]["share_of_gap"]["mean"] == pytest.approx(1)
    assert maze["random_return"] < -40


def test_plotted_numbers_match_the_json(study):
    out, summary = study
    maze = summary["tasks"]["maze"]
    plotted = rows(out, "transfer")
    for panel, entries in (
        ("return", maze["rows"]),
        *((name, {row: maze["quality"][row][name] for row in IMITATORS}) for name in ("correlation", "epic")),
    ):
        for row, entry in entries.items():
            mine = {r["seed"]: float(r["value"]) for r in plotted if (r["panel"], r["row"]) == (panel, row)}
            assert mine == pytest.approx(
                {str(i): v for i, v in enumerate(entry["seeds"])} | {"mean": entry["mean"]}, rel=1e-4
            )


def test_the_maps_are_the_learned_rewards(study):
    out, _ = study
    for row in IMITATORS:
        mine = [r for r in rows(out, "maze_rewards") if (r["row"], r["series"]) == (row, "reward")]
        found = result(out, f"{row}-seed0")["state_reward"]
        np.testing.assert_allclose([float(r["value"]) for r in mine], (found - found.mean()) / found.std(), atol=1e-4)
        np.testing.assert_allclose([[float(r["x"]), float(r["y"])] for r in mine], maze_grid(), atol=1e-5)
    (best,) = [r for r in rows(out, "maze_rewards") if r["row"] == "true" and float(r["value"]) > 1.95][:1]
    assert np.hypot(float(best["x"]) - 0.3, float(best["y"]) - 0.5) < 0.05


def test_the_reward_that_is_used_is_the_one_that_was_learned(study, tmp_path):
    """And it is a function of the state alone for the one, and not for the other."""
    out, _ = study
    states = torch.from_numpy(maze_grid())
    for row in AIRLS:
        kept = result(out, f"{row}-seed0")
        (tmp_path / "reward.ckpt").write_bytes(kept["checkpoint"].tobytes())
        reward = load_reward(tmp_path / "reward.ckpt")
        np.testing.assert_allclose(learners.over_actions(reward, states).numpy(), kept["state_reward"], atol=1e-5)
        fixed = torch.zeros(len(states), dtype=torch.bool)
        at = [
            reward.reward(
                Transitions(
                    observation=states, action=torch.full((len(states), 2), a), reward=fixed.float(), terminated=fixed,
                    truncated=fixed, next_observation=states, batch_size=fixed.shape,
                )
            )
            for a in (-1.0, 1.0)
        ]  # fmt: skip
        assert torch.equal(*at) == (row == "airl_state")


@pytest.mark.slow
def test_fresh_policy_learns_on_the_given_reward(tmp_path, monkeypatch):
    """With a reward in place of the learned one that leads into the lower left corner, it goes there."""

    class Corner(RewardModel):
        def reward(self, transitions):
            return -torch.linalg.vector_norm(transitions.observation + 0.1, dim=-1)

    asked = []
    monkeypatch.setattr("lit_imitation.methods.rl.load_reward", lambda path: asked.append(path) or Corner())
    np.savez(tmp_path / "reward.npz", checkpoint=np.zeros(3, np.uint8))
    rounds = dict(MAZE.rounds) | {"env_steps": 30_000, "rounds_per_epoch": 10}
    ppo = dict(MAZE.ppo) | {"epochs": 5, "batch_size": 125, "gamma": 0.9}
    with quiet():
        found = learners.reinforced("maze", "target", rounds, ppo, 4, 0, {}, tmp_path / "reward.npz")
    assert len(asked) == 1
    assert np.linalg.norm(found["path"][-1] + 0.1) < 0.1
    assert found["returns"].mean() < -55  # 0.72 from the goal


@pytest.mark.slow
@pytest.mark.integration
def test_planning_in_the_mirrored_maze(tmp_path, monkeypatch):
    """The true reward leads around the barrier to the goal; a reward of the lower left corner leads there."""
    best = planning.planned(20, 0)
    # Around the barrier's end at x = 0.4 the way takes 25 steps or so; to stand at the barrier would cost 0.2 a step.
    assert best["returns"].min() > -8.5
    crossing = np.flatnonzero(best["path"][:, 1] > point_mass_maze.BARRIER_HEIGHT)[0]
    assert best["path"][crossing - 1, 0] > 0.38

    class Corner(RewardModel):
        def reward(self, transitions):
            return -torch.linalg.vector_norm(transitions.observation + 0.1, dim=-1)

    monkeypatch.setattr("experiments.studies.transfer.planning.load_reward", lambda path: Corner())
    np.savez(tmp_path / "reward.npz", checkpoint=np.zeros(3, np.uint8))
    path = planning.planned(1, 0, {}, tmp_path / "reward.npz")["path"]
    assert np.linalg.norm(path[-1] + 0.1) < 0.02


def test_the_expert_gets_an_entropy_reward():
    """The environment's reward plus α times −log π of the executed action."""
    envs = make(WORLDS["maze"].source, 3, 0, "vector")
    spaces = envs.single_observation_space, envs.single_action_space
    module = learners.MaximumEntropy(learners.PPO, learners.POLICY, 0.2)
    module.build(*spaces, learners.POLICY(*spaces))
    steps = Steps(envs, module.policy.actor(deterministic=False), 8 * 3, 0, record=True)
    for _ in steps:
        pass
    taken = steps.transitions().reshape(8, 3)
    paid = module.relabel_rewards(Round(taken, torch.ones(8, 3, dtype=torch.bool), []))
    for row in range(8):  # the box is [−1, 1]², so that its units are the environment's
        expected = taken.reward[row] - 0.2 * module.policy.log_prob(taken.observation[row], taken.action[row])
        torch.testing.assert_close(paid.rollout.reward[row], expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(paid.rollout.reward, taken.reward)


@pytest.mark.integration
def test_true_rewards_match_the_environments():
    """As functions of transitions, for EPIC; the ant's without contact forces and the time within a step."""
    for world, pair in WORLDS.items():
        if world == "ant":
            pytest.importorskip("mujoco")
        envs = make(pair.target, 2, 0, pair.backend)
        envs.action_space.seed(0)
        steps = Steps(envs, lambda _, envs=envs: envs.action_space.sample(), 150, 0, record=True)
        for _ in steps:
            pass
        taken = steps.transitions()
        found = pair.true_reward(taken)
        if world == "maze":
            np.testing.assert_allclose(found, taken.reward, atol=1e-5)
            free = pair.state_reward(taken.observation) - found
            assert ((free >= 0) & (free < 2.1e-3)).all()
        else:
            assert np.corrcoef(found, taken.reward)[0, 1] > 0.8


@pytest.mark.slow
def test_quality_separates_a_good_reward_from_a_bad_one():
    pair = WORLDS["maze"]

    class Given:
        spaces = make(pair.source, 1, 0).single_observation_space, make(pair.source, 1, 0).single_action_space

        def __init__(self, factor):
            self.factor = factor

        def reward(self, transitions):
            return self.factor * pair.true_reward(transitions).float() + 7

    nothing = pair.coverage(None, 0)
    good, bad = (learners.compare(Given(factor), pair, nothing) for factor in (3.0, -1.0))
    assert good["correlation"] == pytest.approx(1, abs=1e-4)
    assert good["epic"] == pytest.approx(0, abs=1e-3)
    assert bad["correlation"] == pytest.approx(-1, abs=1e-4)
    assert bad["epic"] == pytest.approx(1, abs=1e-3)
    assert good["state_reward"].shape == (GRID**2,)
    moved = point_mass_maze.move(nothing.observation.numpy(), nothing.action.numpy(), "left")
    np.testing.assert_allclose(nothing.next_observation, moved, atol=1e-6)


def test_resuming_trains_only_lost_runs_to_the_same_result(study):
    out, summary = study
    # A checkpoint's bytes contain the time when it was packed.
    resumes(
        out,
        lambda: run(out, TINY),
        summary,
        1 + (2 + 1 + 1 + 2) + (2 + 1) + (2 + 1 + 1 + 1),
        ("expert", "airl_state-seed1", "transfer-seed1"),
        without=("checkpoint",),
    )


def test_tasks_are_chosen_by_name():
    assert [task.world for task in Settings().with_tasks(["ant"]).tasks] == ["ant"]
    with pytest.raises(ConfigError, match="the study of transfer has maze, ant"):
        Settings().with_tasks(["labyrinth"])


@pytest.mark.slow
def test_quick_runs_from_the_command_line(tmp_path):
    pytest.importorskip("mujoco")
    main(["study", "transfer", "--quick", "--out", str(tmp_path), "--seeds", "1"])
    summary = json.loads((tmp_path / "transfer.json").read_text())
    assert summary["settings"] == json.loads(json.dumps(dataclasses.asdict(QUICK.with_seeds(1))))
    assert summary["tasks"].keys() == {"maze", "ant"}
    main(["study", "transfer", "--quick", "--out", str(tmp_path), "--seeds", "1", "--tasks", "ant"])
    alone = json.loads((tmp_path / "transfer.json").read_text())
    assert alone["tasks"] == {"ant": summary["tasks"]["ant"]}
