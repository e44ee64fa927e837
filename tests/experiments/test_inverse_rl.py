"""The study of inverse RL on small settings, from the demonstrations to the page."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from study_checks import resumes, rows

from experiments.__main__ import main
from experiments.studies.common import quiet
from experiments.studies.inverse_rl import QUICK, Settings, learners, run
from experiments.studies.inverse_rl.figures import CORNER
from experiments.studies.inverse_rl.maps import drawn, epic_distance, losses, optimal_actions, scaled, shaped
from experiments.studies.inverse_rl.worlds import WORLDS, built, lake
from lit_imitation.tabular import TabularMDP

RECIPES = Path(__file__).parents[2] / "configs" / "maxent_irl"
BRIEF = {"passes_per_epoch": 3, "steps_per_trajectory": 12}
TINY = Settings(
    lake=dataclasses.replace(QUICK.lake, data=dict(QUICK.lake.data) | BRIEF | {"expert_trajectories": 9}, epochs=2),
    tasks=tuple(
        dataclasses.replace(task, arguments=small, data=dict(task.data) | BRIEF, epochs=2)
        for task, small in zip(QUICK.tasks, ({"size": 6, "objects": 8}, {"size": 14}), strict=True)
    ),
    demonstrations=(4, 8),
    seeds=2,
)
GAMMA = 0.9


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    return out, run(out, TINY)


def result(out, name):
    (file,) = (out / "runs").glob(f"{name}*")
    return dict(np.load(file))


def dense(mdp):
    """P[a, s, s′]."""
    found = np.zeros((mdp.num_actions * mdp.num_states, mdp.num_states))
    found[mdp.row.numpy(), mdp.successor.numpy()] = mdp.probability.numpy()
    return found.reshape(mdp.num_actions, mdp.num_states, mdp.num_states)


def best(mdp, reward):
    """Q* `[A, S]` by plain iteration."""
    value, moves = np.zeros(mdp.num_states), dense(mdp)
    for _ in range(300):
        q = reward + GAMMA * moves @ value
        value = q.max(0)
    return q


def worth(mdp, policy):
    """The true value of a policy (`[S]` or `[S, A]`), mean over all states, by a linear system."""
    if policy.ndim == 1:
        policy = np.eye(mdp.num_actions)[policy]
    moves = np.einsum("sa,ast->st", policy, dense(mdp))
    return np.linalg.solve(np.eye(mdp.num_states) - GAMMA * moves, mdp.reward.values.numpy()).mean()


def soft(mdp):
    """The policy of maximum causal entropy under the true reward, `[S, A]`."""
    value, moves = np.zeros(mdp.num_states), dense(mdp)
    for _ in range(300):
        q = mdp.reward.values.numpy() + GAMMA * moves @ value
        value = np.log(np.exp(q).sum(0))
    return np.exp(q - value).T


def test_all_files_are_written(study):
    out, summary = study
    for name in ("inverse_rl", "value_difference"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (out / f"{name}.svg").read_text()
    assert json.loads((out / "inverse_rl.json").read_text()) == json.loads(json.dumps(summary))
    page = (out / "inverse_rl.md").read_text()
    assert all(
        f"]({name}.{kind})" in page for name in ("inverse_rl", "value_difference") for kind in ("png", "svg", "csv")
    )
    entry = summary["curves"]["object_world"]["linear"]["fresh"]["value_share"][1]
    assert f"{entry['mean']:.3f} [{entry['ci95'][0]:.3f}, " in page
    assert f"reward (b) is **{summary['lake']['recovered']['epic_distance']:.2f}**" in " ".join(page.split())
    assert not any(word in page for word in ("nan", "None"))


def test_values_are_those_of_the_recovered_policy(study):
    """In the world of the demonstrations, and in the world of the next seed by its features."""
    out, summary = study
    for world, small in (("object_world", {"size": 6, "objects": 8}), ("binary_world", {"size": 14})):
        for name in ("deep", "linear"):
            found = result(out, f"{world}-{name}-8-seed2")
            mdp = built(world, small | {"seed": 200})
            assert found["optimal"] == pytest.approx(
                worth(mdp, best(mdp, mdp.reward.values.numpy()).argmax(0)), rel=1e-3
            )
            assert found["reached"] == pytest.approx(worth(mdp, best(mdp, found["reward"]).argmax(0)), abs=2e-3)
            assert found["reached"] < found["optimal"]
            fresh = built(world, small | {"seed": 201})
            truth = fresh.reward.values.numpy()
            assert found["fresh_optimal"] == pytest.approx(worth(fresh, best(fresh, truth).argmax(0)), rel=1e-3)
            entry = summary["curves"][world][name]["training"]
            assert entry["expected_value_difference"][1]["seeds"][1] == pytest.approx(
                found["optimal"] - found["reached"]
            )
            assert entry["value_share"][1]["seeds"][1] == pytest.approx(found["reached"] / found["optimal"])
            entry = summary["curves"][world][name]["fresh"]
            assert entry["value_share"][1]["seeds"][1] == pytest.approx(found["fresh_reached"] / found["fresh_optimal"])


def test_the_soft_expert_demonstrates(study):
    out, summary = study
    found, mdp = result(out, "binary_world-deep-4-seed1"), built("binary_world", {"size": 14, "seed": 100})
    assert found["expert"] == pytest.approx(worth(mdp, soft(mdp)), rel=1e-3)
    share = summary["curves"]["binary_world"]["expert"]["training"]["value_share"][0]["seeds"][0]
    assert share == pytest.approx(found["expert"] / found["optimal"])
    assert 0.2 < share < 0.8
    lakes = result(out, "lake")
    assert lakes["steps"] == 9 * 12
    assert lakes["shown"].shape == (learners.SHOWN, 12)


def test_every_world_is_used_once(monkeypatch):
    met = []
    monkeypatch.setattr(
        "experiments.studies.inverse_rl.execute", lambda runs, *_: [met.extend(run.arguments for run in runs)][:0]
    )
    with pytest.raises(ValueError, match="zip"):
        run(Path("nowhere"), Settings())
    curves = [one for one in met if one["world"] != "lake"]
    assert len(curves) == 2 * 2 * 5 * 5
    trained, fresh = ({one[place]["seed"] for one in curves} for place in ("arguments", "fresh"))
    assert len(trained) == len(fresh) == 5
    assert not trained & fresh
    assert 0 not in trained  # the recipes were tuned on it


def test_maps_show_recovered_rewards_and_optimal_actions(study):
    out, _ = study
    plotted = rows(out, "inverse_rl")
    for world, series, name, mdp in (
        ("lake", "recovered", "lake", lake(**TINY.lake.arguments)),
        ("binary_world", "deep", "binary_world-deep-8-seed1", built("binary_world", {"size": 14, "seed": 100})),
    ):
        size = mdp.grid[0]
        mine = [r for r in plotted if (r["world"], r["series"]) == (world, series)]
        assert len(mine) == min(size, CORNER) ** 2
        found, truth = result(out, name)["reward"], mdp.reward.values.numpy()
        slope, constant = np.polyfit(found, truth, 1)
        assert slope > 0
        q, value = best(mdp, found), best(mdp, truth)
        for row in mine:
            cell = int(row["row"]) * size + int(row["column"])
            action = int(row["action"])
            assert float(row["reward"]) == pytest.approx(slope * found[cell] + constant, abs=1e-4)
            assert q[action, cell] == pytest.approx(q[:, cell].max(), abs=1e-5)
            assert float(row["loss"]) == pytest.approx(value[:, cell].max() - value[action, cell], abs=1e-4)


def test_plotted_curves_match_the_json(study):
    out, summary = study
    plotted = rows(out, "value_difference")
    for world, told in summary["curves"].items():
        for name in ("deep", "linear"):
            for place in ("training", "fresh"):
                for quantity, entries in told[name][place].items():
                    for count, entry in zip(TINY.demonstrations, entries, strict=True):
                        key = (world, quantity, name, place, str(count))
                        mine = {r["seed"]: float(r["value"]) for r in plotted if tuple(r.values())[:5] == key}
                        values = {str(seed): value for seed, value in enumerate(entry["seeds"], start=1)}
                        assert mine == pytest.approx(values | {"mean": entry["mean"]}, rel=1e-4)


def test_true_arrows_lead_around_the_lake_to_the_goal():
    mdp = lake(pay=3.0, slip=0.0)
    action = optimal_actions(mdp, mdp.reward, GAMMA)
    moves, truth = dense(mdp), mdp.reward.values.numpy()
    assert (losses(mdp, action, GAMMA) < 1e-6).all()
    for cell in range(mdp.num_states):
        visited = [cell]
        for _ in range(14):
            visited.append(int(moves[action[visited[-1]], visited[-1]].argmax()))
        assert truth[visited[-1]] == 3.0
        paid = truth[visited]
        assert not ((paid[:-1] == 0) & (paid[1:] < 0)).any()  # no path enters the lake from outside


def test_losses_match_a_hand_calculation():
    """Two places, one of which pays 1: staying at the other costs half a step's reward."""
    stay, go = np.eye(2), np.array([[0.0, 1.0], [0.0, 1.0]])
    mdp = TabularMDP(np.stack([stay, go], axis=1), reward=[0.0, 1.0])
    np.testing.assert_allclose(losses(mdp, np.array([0, 0]), 0.5), [0.5, 0.0], atol=1e-6)
    np.testing.assert_allclose(losses(mdp, np.array([1, 1]), 0.5), [0.0, 0.0], atol=1e-6)


def test_scaling_fits_factor_and_constant_but_not_the_sign():
    truth = np.random.default_rng(0).normal(size=50)
    found, factor = scaled(3.0 * truth - 7.0, truth)
    np.testing.assert_allclose(found, truth, atol=1e-12)
    assert factor == pytest.approx(1 / 3)
    found, factor = scaled(-truth, truth)
    np.testing.assert_allclose(found, truth.mean())
    assert factor == 0.0
    mdp = lake(**TINY.lake.arguments)
    again = drawn(mdp, 3.0 * mdp.reward.values.numpy() - 7.0, GAMMA)
    np.testing.assert_allclose(again.reward, mdp.reward.values, atol=1e-9)
    assert (again.loss < 1e-6).all()
    assert epic_distance(mdp, 3.0 * mdp.reward.values.numpy() - 7.0, GAMMA) == pytest.approx(0.0, abs=1e-6)


def test_a_potential_changes_rewards_but_not_the_policy(study):
    _, summary = study
    mdp = lake(**TINY.lake.arguments)
    noise = np.random.default_rng(3).normal(0.0, 3.0, mdp.num_states)
    other = shaped(mdp, noise, GAMMA)
    truth = mdp.reward.values.numpy()
    assert (other.map.loss < 1e-6).all()
    assert other.epic == pytest.approx(0.0, abs=1e-6)
    assert other.pearson > 0.3
    expected = truth + GAMMA * (dense(mdp) @ noise).mean(0) - noise
    np.testing.assert_allclose(other.map.reward, expected, atol=1e-9)
    # The same noise as a reward of its own changes both.
    assert epic_distance(mdp, truth + noise, GAMMA) > 0.3
    assert (drawn(mdp, truth + noise, GAMMA).loss > 1e-6).any()
    told = summary["lake"]["with_potential"]
    assert told["optimal_actions"] == told["same_actions"] == 1.0
    assert told["epic_distance"] < 1e-6 < 0.1 < summary["lake"]["recovered"]["epic_distance"]


@pytest.mark.integration
def test_many_demonstrations_recover_the_lake():
    """The recovered map shows where the lake is and that avoiding it pays."""
    arguments = {"pay": 3.0, "slip": 0.2}
    data = {"expert": "soft", "expert_gamma": GAMMA, "expert_trajectories": 400, "steps_per_trajectory": 20}
    model = {"gamma": GAMMA, "learning_rate": 0.15, "gap_tolerance": 0.0}
    with quiet():
        found = learners.recovered("lake", arguments, None, None, model, data, epochs=4, seed=0)
    mdp = lake(**arguments)
    truth = mdp.reward.values.numpy()
    assert np.corrcoef(found["reward"], truth)[0, 1] > 0.85
    assert found["reached"] > 0.98 * found["optimal"] > found["expert"]
    assert epic_distance(mdp, found["reward"], GAMMA) < 0.3


@pytest.mark.parametrize("task", Settings().tasks, ids=lambda task: task.world)
def test_settings_match_the_recipes(task):
    """Except for the weights of steps and the regularization that goes with them."""
    assert task.model["step_weights"] == "discounted"
    model = {name: value for name, value in task.model.items() if name != "step_weights"} | {"l2_coefficient": 0.001}
    recipe = yaml.safe_load((RECIPES / f"{task.world}.yaml").read_text())
    assert recipe["model"] == {
        "class_path": "lit_imitation.MaxEntIRL",
        "init_args": {
            **model, "reward": {"class_path": "lit_imitation.MLPReward", "init_args": dict(task.deep)},
        },
    }  # fmt: skip
    data = recipe["data"]["init_args"]
    for name in ("expert_trajectories", "fresh_worlds"):  # the study's own
        del data[name]
    assert data.pop("env_kwargs", {}) == task.arguments
    assert data == {"env_id": f"lit_imitation/{WORLDS[task.world].__name__}-v0", **task.data}
    assert {name: value for name, value in recipe["trainer"].items() if name != "check_val_every_n_epoch"} == {
        "max_epochs": task.epochs
    }


def test_resuming_trains_only_lost_runs_to_the_same_result(study):
    out, summary = study
    torch.manual_seed(123)
    resumes(
        out, lambda: run(out, TINY), summary, 1 + 2 * 2 * 2 * 2, ("lake", "object_world-deep", "binary_world-linear")
    )


@pytest.mark.slow
def test_quick_runs_from_the_command_line(tmp_path):
    main(["study", "inverse_rl", "--quick", "--out", str(tmp_path), "--seeds", "1"])
    summary = json.loads((tmp_path / "inverse_rl.json").read_text())
    assert summary["settings"] == json.loads(json.dumps(dataclasses.asdict(QUICK.with_seeds(1))))
    assert (tmp_path / "value_difference.png").exists()
