"""Reference returns of the normalized score: how they are measured, and what a file records."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lit_imitation import DemonstrationDataModule, ImitationDataModule, TabularDataModule, Transitions
from lit_imitation.cli import main
from lit_imitation.data.demonstrations import (
    LEARNER,
    Demonstrations,
    read_demonstrations,
    recorded_return,
    with_return,
    write_demonstrations,
)
from lit_imitation.errors import ConfigError, DemonstrationError, ExpertError
from lit_imitation.rollout.reference import Reference
from lit_imitation.utils.statistics import Scale, stratified_score_interval


def cart_pole(rewards: list[float], lengths: tuple[int, ...] = (4, 3)) -> Transitions:
    """Trajectories of CartPole-v1 with these rewards for each step."""
    count = sum(lengths)
    over = torch.zeros(count, dtype=torch.bool)
    over[np.cumsum(lengths) - 1] = True
    return Transitions(
        observation=torch.zeros(count, 4),
        action=torch.zeros(count, dtype=torch.int64),
        reward=torch.tensor(rewards),
        terminated=over,
        truncated=torch.zeros(count, dtype=torch.bool),
        batch_size=[count],
    )


def ready(demonstrations: object = "", **more: object) -> DemonstrationDataModule:
    data = DemonstrationDataModule("CartPole-v1", demonstrations=demonstrations, eval_episodes=0, num_envs=2, **more)
    data.prepare_data()
    data.setup("fit")
    return data


def test_reference_has_the_standard_error_of_a_mean():
    returns = np.random.default_rng(0).normal(5, 2, 40)
    reference = Reference.of(returns)
    assert reference.mean == pytest.approx(returns.mean())
    assert reference.error == pytest.approx(returns.std(ddof=1) / np.sqrt(40))
    assert reference.episodes == 40
    assert Reference.of([3.0]) == (3.0, None, 1)


DRAWS = """
import numpy as np
def act(o): return np.random.randint(0, 2, len(o))
"""


@pytest.mark.integration
@pytest.mark.parametrize("kind", [DemonstrationDataModule, ImitationDataModule])
def test_expert_return_is_measured_once_over_100_episodes(kind, tmp_path, monkeypatch, capsys):
    """The return of random actions on CartPole is known: 22.2."""
    monkeypatch.setenv("LIT_IMITATION_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    name = f"draws_{kind.__name__.lower()}"
    (tmp_path / f"{name}.py").write_text(DRAWS)
    found = []
    for seed in (0, 1):
        data = kind("CartPole-v1", expert=f"{name}:act", num_trajectories=3, eval_episodes=0, seed=seed)
        data.trainer = SimpleNamespace(
            state=SimpleNamespace(fn="fit"), world_size=1, global_rank=0,
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )  # fmt: skip
        data.prepare_data()
        data.setup("fit")
        found.append(data.expert_reference)
    assert found[0] == found[1]  # for every seed
    assert found[0].episodes == 100
    assert found[0].mean == pytest.approx(22.2, abs=4 * 1.2)
    assert 0.5 < found[0].error < 2.5
    assert len(list((tmp_path / "cache" / "expert_returns").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.integration
def test_expert_return_is_of_its_mode_unless_evaluation_draws(tmp_path):
    """The expert is measured as the learner is evaluated, even if its demonstrations are draws."""
    from lit_imitation.policies import CategoricalPolicy
    from lit_imitation.policies.checkpoints import describe

    spaces = DemonstrationDataModule("CartPole-v1", expert="scripted").spaces
    policy = CategoricalPolicy(*spaces, hidden_sizes=[])
    # θ + θ̇ > 0 pushes right. The mode balances the pole; draws from these small logits do not.
    policy.network.layers[0].weight.data = 0.05 * torch.tensor([[0, 0, -1.0, -1.0], [0, 0, 1.0, 1.0]])
    torch.nn.init.zeros_(policy.network.layers[0].bias)
    state = {f"policy.{name}": value for name, value in policy.state_dict().items()}
    torch.save({"policy": describe(policy), "state_dict": state}, tmp_path / "expert.ckpt")
    expert = {"expert": f"checkpoint:{tmp_path / 'expert.ckpt'}", "num_trajectories": 3}
    data = ready(**expert, expert_deterministic=False)
    assert data.load().episode_returns.max() < 100
    assert data.expert_return > 150
    drawn = ready(**expert, eval_deterministic=False)
    assert drawn.load().episode_returns.min() > 100
    assert drawn.expert_return < 40
    # A stochastic file keeps the return of the mode.
    file = tmp_path / "drawn.npz"
    main(["collect", "--env_id=CartPole-v1", f"--expert={expert['expert']}", "--episodes=3", "--stochastic",
          f"--out={file}"])  # fmt: skip
    assert ready(str(file)).expert_return == data.expert_return
    assert ready(str(file), eval_deterministic=False).expert_return < 60  # as recorded


@pytest.mark.parametrize("suffix", ["npz", "hdf5"])
@pytest.mark.parametrize("rewards", ["zero", "absent"])
def test_unrecorded_rewards_give_no_expert_return(tmp_path, capsys, suffix, rewards):
    transitions = cart_pole([0.0] * 7)
    file = tmp_path / f"mine.{suffix}"
    write_demonstrations(file, Demonstrations(transitions, transitions.episode_returns(), {}))
    if rewards == "absent":
        if suffix == "npz":
            held = {key: value for key, value in np.load(file).items() if key not in ("rewards", "episode_returns")}
            np.savez(file, **held)
        else:
            import h5py

            with h5py.File(file, "a") as hdf5:
                del hdf5["rewards"], hdf5["episode_returns"]
    data = ready(str(file))
    assert data.expert_return is None
    assert f"no normalized_score: {file} records no rewards; set data.expert_return" in capsys.readouterr().err
    assert ready(transitions).expert_return is None
    given = ready(str(file), expert_return=30.0)
    assert given.expert_reference == (30.0, None, 0)
    assert "no normalized_score" not in capsys.readouterr().err.splitlines()[-1:]


def test_imitation_archive_without_rews_gives_no_expert_return(tmp_path):
    arrays = {"obs": np.zeros((6, 4), np.float32), "acts": np.zeros(4, np.int64), "terminal": np.array([True, False])}
    np.savez(tmp_path / "flat.npz", **arrays, indices=np.array([2]))
    assert ready(str(tmp_path / "flat.npz")).expert_return is None
    np.savez(tmp_path / "flat.npz", **arrays, indices=np.array([2]), rews=np.ones(4))
    assert ready(str(tmp_path / "flat.npz")).expert_return == 2.0


@pytest.mark.slow
@pytest.mark.integration
def test_hugging_face_dataset_without_rews_gives_no_expert_return(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"obs": [np.zeros((3, 4)).tolist()] * 2, "acts": [[0, 1]] * 2, "terminal": [True, False]}
    for name, rews in (("without", {}), ("with", {"rews": [[1.0, 1.0]] * 2})):
        datasets.Dataset.from_dict(rows | rews).save_to_disk(tmp_path / name)
    assert ready(f"hf:{tmp_path / 'without'}").expert_return is None
    assert ready(f"hf:{tmp_path / 'with'}").expert_return == 2.0


def test_recorded_returns_win_over_remaining_rewards(tmp_path):
    """In a subsampled file the column has the returns of whole trajectories."""
    file = tmp_path / "some.npz"
    write_demonstrations(file, Demonstrations(cart_pole([0.0] * 7), torch.tensor([100.0, 200.0]).double(), {}))
    assert ready(str(file)).expert_reference[:2] == (150.0, pytest.approx(50.0))


def test_missing_rewards_of_some_rows_are_an_error(tmp_path):
    file = tmp_path / "nan.npz"
    write_demonstrations(file, Demonstrations(cart_pole([1.0] * 7), torch.zeros(2).double(), {}))
    held = dict(np.load(file))
    held["rewards"][3] = np.nan
    np.savez(file, **held)
    with pytest.raises(DemonstrationError, match="'rewards', row 3 is nan"):
        ready(str(file))


def test_learner_returns_are_not_taken_for_the_experts(tmp_path, capsys):
    """In a folder of rounds, the expert return that all files agree on counts."""
    transitions = cart_pole([1.0] * 7)
    reference = Reference(500.0, 2.0, 100)
    for known in (True, False):
        for i, metadata in enumerate(({"round": 0}, {"round": 1, "returns": LEARNER})):
            if known:
                metadata = with_return(metadata, reference, True)
            data = Demonstrations(transitions, transitions.episode_returns(), metadata)
            write_demonstrations(tmp_path / str(known) / f"round_{i}.npz", data)
    assert ready(str(tmp_path / "True")).expert_reference == reference
    assert ready(str(tmp_path / "True" / "round_1.npz")).expert_reference == reference
    assert ready(str(tmp_path / "False")).expert_return is None
    assert "records returns of a learner" in capsys.readouterr().err
    assert ready(str(tmp_path / "False" / "round_0.npz")).expert_return == 3.5
    spaces = ready(transitions).spaces
    (tmp_path / "False" / "round_0.npz").unlink()
    other = with_return({}, Reference(1.0, None, 1), True)
    write_demonstrations(tmp_path / "True" / "other.npz", Demonstrations(transitions, torch.ones(2).double(), other))
    assert "expert_return" not in read_demonstrations(str(tmp_path / "True"), *spaces).metadata
    for bad in ("many", float("nan")):
        metadata = {"expert_return": bad}
        write_demonstrations(tmp_path / "bad.npz", Demonstrations(transitions, torch.ones(2).double(), metadata))
        with pytest.raises(DemonstrationError, match="expert_return"):
            ready(str(tmp_path / "bad.npz"))


def test_given_return_must_be_finite():
    with pytest.raises(ConfigError, match=r"data\.expert_return is nan"):
        DemonstrationDataModule("CartPole-v1", expert="scripted", expert_return=float("nan"))


def test_given_return_skips_the_measurement(tmp_path, monkeypatch):
    monkeypatch.setattr(DemonstrationDataModule, "measure_return", None)
    assert ready(expert="scripted", num_trajectories=2, expert_return=7.0).expert_return == 7.0


def test_recorded_returns_win_over_data_expert(monkeypatch, capsys):
    """A recipe keeps data.expert when a file replaces its demonstrations."""
    asked = Reference(500.0, 0.0, 100)
    monkeypatch.setattr(DemonstrationDataModule, "measure_return", lambda self, expert, actor=None: asked)
    assert ready(cart_pole([1.0] * 7), expert="scripted").expert_return == 3.5
    capsys.readouterr()
    assert ready(cart_pole([0.0] * 7), expert="scripted").expert_return == 500.0
    assert "normalized_score is relative to data.expert scripted: the demonstrations contain no returns" in (
        capsys.readouterr().err
    )


@pytest.mark.integration
def test_checkpoint_keeps_reference_of_same_evaluation(monkeypatch):
    data = ready(expert="scripted", num_trajectories=2)
    state = json.loads(json.dumps(data.state_dict()))  # of primitives
    monkeypatch.setattr(DemonstrationDataModule, "measure_return", lambda self, expert: Reference(1.0, 0.5, 100))
    settings = {"env_id": "CartPole-v1", "expert": "scripted"}
    for more, carried in (
        ({}, True),
        ({"eval_deterministic": False}, False),
        ({"expert": "shipped"}, False),
        ({"env_kwargs": {"sutton_barto_reward": True}}, False),
        ({"refresh": True}, False),
    ):
        other = DemonstrationDataModule(**(settings | more))
        other.load_state_dict(state)
        assert other.expert_reference == (data.expert_reference if carried else (1.0, 0.5, 100))
    given = DemonstrationDataModule(**settings, expert_return=3.0)
    given.load_state_dict(state)
    assert given.expert_return == 3.0


@pytest.mark.integration
def test_own_reference_wins_over_checkpoint_of_other_task(capsys):
    state = ready(expert="scripted", num_trajectories=2).state_dict()
    own = ready(cart_pole([1.0] * 7))
    capsys.readouterr()
    own.load_state_dict(state)
    assert own.expert_return == 3.5
    assert "no normalized_score" not in capsys.readouterr().err
    unknown = DemonstrationDataModule("Acrobot-v1", demonstrations="/nowhere.npz")
    unknown.load_state_dict(state)
    assert "no normalized_score: the checkpoint's expert return 500 is of another" in capsys.readouterr().err


def test_missing_expert_at_test_only_costs_the_score(capsys):
    data = DemonstrationDataModule("CartPole-v1", expert="checkpoint:/nowhere")
    assert data.expert_return is None
    assert "no normalized_score" in capsys.readouterr().err


def test_expert_that_fails_while_measured_is_named():
    data = DemonstrationDataModule("CartPole-v1", expert="scripted", num_envs=2)

    def broken(observation: np.ndarray) -> np.ndarray:
        raise RuntimeError("no more")

    with pytest.raises(ExpertError, match=r"return of the expert broken in CartPole-v1: RuntimeError .*no more"):
        data.measure_return(broken, broken)


@pytest.mark.integration
def test_tabular_reference_follows_eval_deterministic():
    """On a lake that is not slippery the optimal mode always arrives; draws have the return of the demonstrations."""
    data = TabularDataModule("FrozenLake-v1", env_kwargs={"is_slippery": False}, eval_episodes=0)
    data.setup("fit")
    assert data.expert_reference[:2] == (1.0, 0.0)
    found = {}
    for deterministic in (True, False):
        soft = TabularDataModule("lit_imitation/GridWorld-v0", expert="soft", expert_trajectories=500, eval_episodes=0,
                                 eval_deterministic=deterministic)  # fmt: skip
        soft.setup("fit")
        found[deterministic] = soft.expert_reference
    shown = Reference.of(soft.trajectories[0].returns(soft.worlds[0], soft.worlds[0].reward))
    assert found[False].mean == pytest.approx(shown.mean, abs=4 * np.hypot(shown.error, found[False].error))
    assert found[True].mean > found[False].mean + 4 * found[False].error


@pytest.mark.integration
def test_score_interval_includes_errors_of_both_references():
    """Against the delta method: Var s ≈ (Var R̄ + s² Var E + (1 − s)² Var r) / (E − r)²."""
    rng = np.random.default_rng(0)
    returns = rng.normal(80, 20, 400)
    for expert_error, random_error in ((0.0, 0.0), (4.0, 0.0), (0.0, 4.0), (3.0, 5.0)):
        scale = Scale(110.0, 10.0, expert_error, random_error)
        low, high = stratified_score_interval([returns], [scale], np.mean, resamples=20000)
        score = (returns.mean() - 10) / 100
        variance = returns.var() / 400 + score**2 * expert_error**2 + (1 - score) ** 2 * random_error**2
        assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(variance) / 100, rel=0.05)
        assert (low + high) / 2 == pytest.approx(score, abs=0.01)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"expert_return": "many"}, "both must be finite numbers"),
        ({"expert_return": float("nan")}, "both must be finite numbers"),
        ({"expert_return_error": float("inf")}, "both must be finite numbers"),
        ({"expert_return_episodes": "100"}, "expert_return_episodes '100'"),
        ({"expert_return_episodes": float("inf")}, "expert_return_episodes inf"),
        ({"expert_return_episodes": -1}, "expert_return_episodes -1"),
        ({"expert_return_deterministic": "false"}, "expert_return_deterministic 'false'"),
    ],
)
def test_invalid_return_metadata_is_refused(changed, text):
    metadata = with_return({}, Reference(400.0, 2.0, 100), True) | changed
    demonstrations = Demonstrations(cart_pole([1.0] * 7), torch.tensor([4.0, 3.0]), metadata)
    with pytest.raises(DemonstrationError, match=text):
        recorded_return(demonstrations, True)
