import copy
import math
import sys

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing

from lit_imitation.metrics.episodes import EpisodeStatistics
from lit_imitation.utils.statistics import bootstrap_interval, interquartile_mean

NAN = math.nan


def episodes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    returns = 100 * torch.rand(count, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, 500, (count,), generator=generator)
    success = torch.randint(0, 2, (count,), generator=generator).double()
    return returns, lengths, success


def no_success(returns):
    returns = torch.tensor(returns, dtype=torch.float64)
    return returns, torch.ones(len(returns), dtype=torch.int64), torch.full_like(returns, NAN)


def test_statistics_match_definitions():
    metric = EpisodeStatistics()
    metric.update(
        torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), torch.tensor([10, 20, 30]), torch.tensor([1.0, NAN, 0.0])
    )
    metric.update(torch.tensor([50.0], dtype=torch.float64), torch.tensor([2**24 + 1]), torch.tensor([NAN]))
    figures = metric.compute()
    assert set(figures) == {
        "return_mean",
        "return_std",
        "return_iqm",
        "return_ci95_low",
        "return_ci95_high",
        "length_mean",
        "episodes",
        "success_rate",
    }
    assert figures["return_mean"] == 14.0
    assert figures["return_std"] == pytest.approx(np.std([1, 2, 3, 50]))
    assert figures["return_iqm"] == 2.5
    assert figures["length_mean"] == (60 + 2**24 + 1) / 4
    assert figures["episodes"] == 4
    assert figures["success_rate"] == 0.5
    interval = figures["return_ci95_low"].item(), figures["return_ci95_high"].item()
    assert interval == bootstrap_interval([1.0, 2.0, 3.0, 50.0], interquartile_mean)


def test_normalized_score_and_interval_use_the_mean():
    metric = EpisodeStatistics(random_return=-10.0)
    metric.update(*no_success([0.0, 10.0, 20.0, 90.0]))
    metric.expert_return = 30.0
    figures = metric.compute()
    low, high = bootstrap_interval([0.0, 10.0, 20.0, 90.0], np.mean)
    assert figures["normalized_score"] == 1.0
    assert figures["normalized_score_ci95_low"].item() == (low + 10) / 40
    assert figures["normalized_score_ci95_high"].item() == (high + 10) / 40
    assert "success_rate" not in figures


def test_interval_is_ordered_if_expert_is_worse_than_random():
    metric = EpisodeStatistics(expert_return=0.0, random_return=10.0)
    metric.update(*no_success([1.0, 2.0, 3.0]))
    figures = metric.compute()
    assert figures["normalized_score_ci95_low"] < figures["normalized_score"] < figures["normalized_score_ci95_high"]


@pytest.mark.parametrize(
    ("expert", "random"), [(None, 0.0), (1.0, None), (NAN, 0.0), (1.0, math.inf), (5.0, 5.0)], ids=str
)
def test_no_score_without_reference_returns(expert, random):
    metric = EpisodeStatistics(expert_return=expert, random_return=random)
    metric.update(*no_success([1.0, 2.0]))
    assert not [name for name in metric.compute() if name.startswith("normalized")]


def test_split_and_order_of_episodes_do_not_matter():
    returns, lengths, success = episodes(17)
    whole = EpisodeStatistics(100.0, 0.0)
    whole.update(returns, lengths, success)
    order = torch.randperm(17, generator=torch.Generator().manual_seed(1))
    parts = [EpisodeStatistics(100.0, 0.0) for _ in range(2)]
    for part, chunk in zip((0, 1, 0, 1), order.split(5), strict=True):
        parts[part].update(returns[chunk], lengths[chunk], success[chunk])
    parts[0].merge_state(parts[1])
    assert parts[0].compute() == whole.compute()


def test_reset_keeps_reference_returns():
    metric = EpisodeStatistics(2.0, 0.0)
    metric.update(*no_success([500.0]))
    metric.compute()
    metric.reset()
    metric.update(*no_success([1.0]))
    figures = copy.deepcopy(metric).compute()
    assert figures["episodes"] == 1
    assert figures["normalized_score"] == 0.5
    assert figures["return_ci95_low"] == figures["return_ci95_high"] == 1.0


@pytest.mark.parametrize("convert", ["float", "half"])
def test_states_stay_float64_after_conversion(convert):
    metric = EpisodeStatistics()
    getattr(metric, convert)()
    metric.to("cpu")
    metric.update(*no_success([1.0 + 2**-40]))
    assert metric.compute()["return_mean"].item() == 1.0 + 2**-40


def test_mismatched_shapes_raise():
    with pytest.raises(ValueError, match=r"\(2,\), \(3,\) and \(2,\)"):
        EpisodeStatistics().update(torch.zeros(2), torch.zeros(3), torch.zeros(2))


def test_no_episodes_raise():
    metric = EpisodeStatistics()
    metric.update(*no_success([]))
    with pytest.raises(ValueError, match="no evaluation episodes"):
        metric.compute()


def compute_on_rank(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    returns, lengths, success = episodes(7)
    for name, of_rank in (("uneven", [[0, 1, 2, 3, 4], [5, 6]]), ("idle", [[0, 1, 2, 3, 4, 5, 6], []])):
        metric = EpisodeStatistics(100.0, 0.0)
        if mine := of_rank[rank]:
            metric.update(returns[mine], lengths[mine], success[mine])
        torch.save(metric.compute(), f"{folder}/{name}_{rank}.pt")
        # Synchronized only during `compute`; afterwards the state is local again.
        assert sum(map(len, metric.returns)) == len(mine)
    torch.distributed.destroy_process_group()


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
def test_two_processes_count_each_episode_once(tmp_path):
    # Forking avoids the import of torch, which would dominate the time of this test; on macOS fork is not safe.
    method = "fork" if sys.platform == "linux" else "spawn"
    torch.multiprocessing.start_processes(compute_on_rank, args=(str(tmp_path),), nprocs=2, start_method=method)
    alone = EpisodeStatistics(100.0, 0.0)
    alone.update(*episodes(7))
    for name in ("uneven_0", "uneven_1", "idle_0", "idle_1"):
        assert torch.load(tmp_path / f"{name}.pt", weights_only=True) == alone.compute(), name
