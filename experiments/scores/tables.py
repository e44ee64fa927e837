"""The tables that the results in `experiments/results` make, one function each."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

import numpy as np


def recipes(rows: list[dict[str, Any]]) -> str:
    """Scores of the recipes."""
    lines = [
        "| recipe | expert, trajectories | seeds | expert's return | BC's return | normalized score | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        score = row["normalized_score"]
        low, high = score["mean_ci95"]
        told = {"scripted": "scripted, 25", "shipped": "shipped, 10"}.get(row["expert"], f"{row['expert']}, 25")
        lines.append(
            f"| `bc/{row['recipe']}` | {told} | {len(row['seeds'])} | {row['expert_return']:.1f} | "
            f"{row['return_mean']['mean']:.1f} | **{score['mean']:.3f}** [{low:.3f}, {high:.3f}] | "
            f"{row['wall_seconds']:.0f} |"
        )
    return "\n".join(lines)


def bc_table(cells: list[dict[str, Any]]) -> str:
    """The GAIL paper's behavioral cloning column on MuJoCo, ours beside theirs."""
    cells = [cell for cell in cells if cell["trajectories"] > 1]
    counts = sorted({cell["trajectories"] for cell in cells})
    lines = [
        "| task (expert's return: theirs, here) | "
        + " | ".join(f"{count} trajectories: ours / theirs" for count in counts)
        + " |",
        "|---" * (len(counts) + 1) + "|",
    ]
    for task in dict.fromkeys(cell["task"] for cell in cells):
        row = {cell["trajectories"]: cell for cell in cells if cell["task"] == task}
        last = row[max(row)]
        body = [
            f"**{row[n]['ours']['mean']:.0f}** / {row[n]['theirs']['mean']:.0f}" if n in row else "" for n in counts
        ]
        lines.append(
            f"| {task} ({last['theirs']['expert']:.0f}, {last['expert_return']:.0f}) | " + " | ".join(body) + " |"
        )
    return "\n".join(lines)


def speed(bc: dict[str, Any], rollout: dict[str, Any], dagger: dict[str, Any] | None) -> str:
    """One line a comparison."""
    lines = ["| work | compared with | ratio |", "|---|---|---|"]
    work = "a gradient step of `fit`, 2×256 at batch 64, logging and progress bar on"
    lines.append(f"| {work} | bare torch loop, fused Adam | {bc['ours_over_bare']['median']:.2f} × its time |")
    if "imitation_over_ours" in bc:
        name = f"`imitation` {bc['imitation_versions']['imitation']}, the value network it carries along included"
        lines.append(f"| the same | {name} | {bc['imitation_over_ours']['median']:.1f} × as fast |")
    for row in rollout["rows"]:
        if row["auto"]:
            what = {"stream": "step by step", "Episodes": "whole episodes", "collect": "whole episodes, recorded"}[
                row["rollout"]
            ]
            lines.append(
                f"| rolling out a 2×64 policy, 64 × {row['env_id']}, {what} | bare `env.step`, "
                f"{row['backend']} | {100 * median(row['share_of_bare']['pairs']):.0f} % of its rate |"
            )
    if dagger is not None:
        work = f"DAgger, {dagger['rounds']} rounds of {dagger['episodes_per_round']} episodes of LunarLander-v3"
        for backend, ratio in dagger.get("imitation_over_ours", {}).items():
            name = f"`imitation` {dagger['imitation_versions']['imitation']}, both as they run by default"
            figures = {key: value["median"] for key, value in ratio["seconds"].items()}
            lines.append(
                f"| {work}, {backend} | {name} | {figures['with_evaluation']:.1f} × as fast; without "
                f"evaluation {figures['as_it_is']:.1f} ×, at equal counts of labels and gradient steps too "
                f"{figures['at_equal_counts']:.1f} × |"
            )
        for backend, measured in dagger["collection"].items():
            share = measured["share_of_bare"]["median"]
            lines.append(
                f"| collecting in it, expert and learner asked, recorded, written | bare `env.step`, {backend} | "
                f"{100 * share:.0f} % of its rate |"
            )
    return "\n".join(lines)


def beside(rows: list[dict[str, Any]]) -> str:
    """DAgger and, on as many labels, behavioral cloning."""
    lines = [
        "| task | seeds | labels | expert's return | DAgger's return | score | cloning's return, as many labels "
        "| score | labels to 0.95 | cloning's score there |",
        "|---" * 10 + "|",
    ]
    for row in rows:
        name = f"`dagger/{row['recipe']}`" if "recipe" in row else row["env_id"]
        reached = row["labels_to_reach"]
        there = (
            f"{np.mean(reached):,.0f} | {score_of(row['bc_at_reach'])}" if row["bc_at_reach"] else "not every seed |"
        )
        lines.append(
            f"| {name} | {len(row['seeds'])} | {row['labels']:,.0f} | {row['expert_return']:.1f} | "
            f"{return_of(row['dagger'])} | {score_of(row['dagger'], '**')} | "
            f"{return_of(row['bc'])} | {score_of(row['bc'])} | {there} |"
        )
    return "\n".join(lines)


def adversarial_recipes(rows: list[dict[str, Any]]) -> str:
    """Scores of GAIL and AIRL, or of GCL."""
    lines = [
        "| recipe | expert, trajectories | seeds | expert's return | learner's return | normalized score "
        "| steps of the best policy | minutes |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        told = f"{row['expert']}, {row['expert_trajectories']}"
        told += f", 1 step in {row['subsample']}" if row["subsample"] > 1 else ""
        lines.append(
            f"| `{row['recipe']}` | {told} | {len(row['seeds'])} | {row['expert_return']:.1f} | {return_of(row)} | "
            f"{score_of(row, '**')} | {row['env_steps']:,.0f} | {row['wall_seconds'] / 60:.1f} |"
        )
    return "\n".join(lines)


def gcl_weights(rows: list[dict[str, Any]]) -> str:
    """How far the importance weights of the GCL recipes went."""
    lines = ["| recipe | effective sample size, before tempering | exponent β |", "|---" * 3 + "|"]
    for row in rows:
        if "weight_exponent" in row:
            size, exponent = row["effective_sample_size"], row["weight_exponent"]
            lines.append(f"| `{row['recipe']}` | {size:.1f} | {exponent:.3f} |")
    return "\n".join(lines)


def reoptimize(rows: list[dict[str, Any]]) -> str:
    """Scores of the learners, and of fresh policies on their rewards."""
    lines = ["| task | reward | seeds | its learner's score | a fresh policy's |", "|---" * 5 + "|"]
    for row in rows:
        scores = [score_of({"normalized_score": row[name]}, mark) for name, mark in (("learner", ""), ("fresh", "**"))]
        cells = [f"`gcl/{row['task']}`", row["method"].upper(), str(len(row["fresh"]["values"])), *scores]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def gail_table(rows: list[dict[str, Any]], cloned: list[dict[str, Any]]) -> str:
    """The GAIL paper's table at its smallest number of demonstrations, ours beside theirs."""
    ours = {cell["task"]: cell["ours"]["mean"] for cell in cloned if cell["trajectories"] in (1, 4)}
    lines = [
        "| task | seeds | expert: theirs, here, here as it demonstrates | BC: theirs, ours | GAIL: theirs | GAIL: ours "
        "| normalized score | last policy's | minutes |",
        "|---" * 9 + "|",
    ]
    for row in rows:
        if row["method"] == "gail":
            theirs, bc = row["published"], ours.get(row["env_id"].split("-")[0])
            experts = f"{theirs['expert']:.0f}, {row['expert_return']:.0f}, {row['demonstrator_return']:.0f}"
            cloning = f"{theirs['bc']:.0f}, {'–' if bc is None else f'{bc:.0f}'}"
            lines.append(
                f"| {row['env_id']} | {len(row['seeds'])} | {experts} | {cloning} | {theirs['gail']:.0f} | "
                f"{return_of(row)} | {score_of(row, '**')} | {np.mean(row['last_score']):.3f} | "
                f"{row['wall_seconds'] / 60:.1f} |"
            )
    return "\n".join(lines)


def airl_table(rows: list[dict[str, Any]]) -> str:
    """AIRL on the four MuJoCo tasks."""
    lines = [
        "| task | seeds | expert's return | AIRL's | normalized score | last policy's | minutes |",
        "|---" * 7 + "|",
    ]
    lines += [
        f"| {row['env_id']} | {len(row['seeds'])} | {row['expert_return']:.0f} | {return_of(row)} | "
        f"{score_of(row, '**')} | {np.mean(row['last_score']):.3f} | {row['wall_seconds'] / 60:.1f} |"
        for row in rows
        if row["method"] == "airl"
    ]
    return "\n".join(lines)


def gail_sac_table(rows: list[dict[str, Any]]) -> str:
    """How many steps of the environment GAIL takes by SAC and by PPO."""
    lines = [
        "| task | seeds | steps to 0.9: SAC | PPO | ratio of means | SAC's score | last policy's | steps of the best "
        "| minutes |",
        "|---" * 9 + "|",
    ]
    by_ppo = {row["task"]: row["env_steps_to_0.9"] for row in rows if row["method"] == "gail"}
    for row in rows:
        if row["method"] == "gail_sac":
            steps = [row["env_steps_to_0.9"], by_ppo[row["task"]]]
            cells = [", ".join("not" if n is None else f"{n / 1000:.0f}k" for n in one) for one in steps]
            ratio = "–" if any(None in one for one in steps) else f"1 / {np.mean(steps[1]) / np.mean(steps[0]):.1f}"
            lines.append(
                f"| {row['env_id']} | {len(row['seeds'])} | {' | '.join(cells)} | {ratio} | {score_of(row, '**')} | "
                f"{np.mean(row['last_score']):.3f} | {row['env_steps']:,.0f} | {row['wall_seconds'] / 60:.1f} |"
            )
    return "\n".join(lines)


def termination(rows: list[dict[str, Any]]) -> str:
    """Lengths of episodes by what is paid."""
    lines = [
        "| reward | absorbing states | to end is success (expert: 5.5 steps) | to end is failure (expert: 60 steps) |"
    ]
    lines.append("|---" * 4 + "|")
    for row in rows:
        if row["env_id"].startswith("FinishLine"):
            (other,) = (
                one
                for one in rows
                if one["env_id"].startswith("Ledge") and all(one[k] == row[k] for k in ("reward", "absorbing"))
            )
            cells = " | ".join(", ".join(f"{length:.1f}" for length in one["lengths"]) for one in (row, other))
            lines.append(f"| `{row['reward']}` | {'yes' if row['absorbing'] else 'no'} | {cells} |")
    return "\n".join(lines)


def too_strong(rows: list[dict[str, Any]]) -> str:
    """What each option makes of a discriminator that is too strong."""
    lines = [
        "| option | return, seed by seed (the expert's way: −6.6) | Jensen–Shannon divergence (at most 0.693) "
        "| mean reward |",
        "|---" * 4 + "|",
    ]
    for row in rows:
        returns = ", ".join(f"{value:.1f}" for value in row["return_mean"])
        divergence = ", ".join(f"{value:.3f}" for value in row["jensen_shannon"]) or "–"
        rewards = ", ".join(f"{value:.2g}" for value in row["reward_mean"])
        lines.append(f"| `{row['option']}` | {returns} | {divergence} | {rewards} |")
    return "\n".join(lines)


def modes(rows: list[dict[str, Any]]) -> str:
    """Shares of four equally good ways."""
    lines = ["| learner | share of each arm, seed by seed |", "|---" * 2 + "|"]
    for row in rows:
        cells = "; ".join(" ".join(f"{share:.2f}" for share in shares) for shares in row["shares"])
        lines.append(f"| {row['learner']} | {cells} |")
    return "\n".join(lines)


def experts(rows: list[dict[str, Any]]) -> str:
    """What the package ships."""
    lines = [
        "| environment | return, mean ± standard deviation | aim | environment steps | recipe, seed | minutes | kB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        kind = ", continuous" if row["env_kwargs"] else ""
        reached = "" if row["return_mean"] >= row["aim"] else " (not reached)"
        lines.append(
            f"| {row['env_id']}{kind} | **{row['return_mean']:.1f}** ± {row['return_std']:.1f} | "
            f"{row['aim']}{reached} | {row['env_steps']:,} | `{row['recipe']}`, {row['seed']} | "
            f"{row['wall_seconds'] / 60:.0f} | {row['kilobytes']} |"
        )
    return "\n".join(lines)


def rl_returns(rows: list[dict[str, Any]]) -> str:
    """Ours beside Stable-Baselines3's at equal environment steps."""
    lines = ["| task | environment steps | seeds | ours | Stable-Baselines3 |", "|---|---|---|---|---|"]
    for row in rows:
        mine, theirs = (
            f"{row[side]['mean']:.1f} [{row[side]['ci95'][0]:.1f}, {row[side]['ci95'][1]:.1f}]"
            for side in ("ours", "sb3")
        )
        name = f"{row['algorithm'].upper()}, {row['env_id']}"
        lines.append(f"| {name} | {row['env_steps']:,} | {row['seeds']} | {mine} | {theirs} |")
    return "\n".join(lines)


def rl_speed(rl: dict[str, Any], scaling: dict[str, Any] | None) -> str:
    """Where a round's time goes, and how it compares."""
    lines = [
        "| work, one thread | rollout | updates | overhead | compared with | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rl["comparisons"].items():
        parts = _shares(row["seconds"]["ours"], ("rollout", "update", "overhead"))
        lines.append(f"| {name} | {parts} | Stable-Baselines3 | {row['sb3_over_ours']['median']:.1f} × as fast |")
    parts = _shares(rl["recipe"]["seconds"], ("rollout", "update", "overhead"))
    share = 100 * rl["recipe"]["share_of_bare"]["median"]
    lines.append(f"| `ppo/hopper`, as it is | {parts} | bare `env.step` | {share:.0f} % of its rate |")
    if scaling is not None:
        ratio = scaling["two_over_one"]["median"]
        work = "the same on two processes, each with as many environments"
        lines.append(f"| {work} | | | | one process | {ratio:.2f} × its environment steps a second |")
    return "\n".join(lines)


def adversarial_speed(results: dict[str, Any]) -> str:
    """GAIL and AIRL: how fast, and how soon."""
    lines = [
        "| work, one thread | rollout | discriminator | updates | the rest | compared with | ratio |",
        "|---" * 7 + "|",
    ]
    parts = ("rollout", "reward", "update", "overhead")
    for row in [row for part in ("gail", "airl") if part in results for row in results[part]["rows"]]:
        cells = _shares(row["runs"]["ours"], parts)
        name = f"`imitation` {row['imitation_versions']['imitation']}, equal work"
        ratio = row["ours_over_imitation"]["median"]
        lines.append(f"| {row['method']}, {row['env_id']} | {cells} | {name} | {ratio:.1f} × as fast |")
    if "share" in results:
        share = results["share"]
        cells = _shares(share["seconds"], parts)
        ratio = 100 * share["share_of_bare"]["median"]
        lines.append(f"| `gail/hopper`, as it is | {cells} | bare `env.step` | {ratio:.0f} % of its rate |")
    if "reach" in results:
        reach = results["reach"]
        for when, words in (("first", "for the first time"), ("for_good", "for good")):
            ours, theirs = [run[when] for run in reach["ours"]], reach["imitation"][when]
            work = f"GAIL as in the table above on {reach['env_id']}, to 0.9 of the expert {words}"
            seconds = [math.inf if one is None else one["seconds"] for one in ours]
            each = ", ".join("not" if one == math.inf else f"{one:.0f} s" for one in seconds)
            compared = f"`imitation`, its tuned settings, {theirs['seconds']:.0f} s"
            told = f"{each}; the median {theirs['seconds'] / median(seconds):.1f} × sooner"
            if median(seconds) == math.inf:
                told = each
            lines.append(f"| {work} | | | | | {compared} | {told} |")
    return "\n".join(lines)


def _shares(runs: list[dict[str, float]], parts: tuple[str, ...]) -> str:
    """Cells: what part of a round's time each takes, the median over the runs."""
    return " | ".join(f"{100 * median(run[part] / run['round'] for run in runs):.0f} %" for part in parts)


def maxent_irl_speed(result: dict[str, Any]) -> str:
    """Seconds of an iteration, by number of states."""
    lines = [
        "| states | world | ours, ms an iteration | `imitation`, ms | ours is faster by | largest memory |",
        "|---" * 6 + "|",
    ]
    for row in result["together"]:
        over = row["imitation_over_ours"]
        theirs = [f"{1e3 * median(row['seconds'][name]):.1f} ({name.rpartition(' ')[2]})" for name in over]
        times = [f"{ratio['median']:.1f} ×" for ratio in over.values()]
        lines.append(
            f"| {row['states']:,} | scattered | {1e3 * median(row['seconds']['ours']):.2f} | {', '.join(theirs)} | "
            f"{', '.join(times)} | |"
        )
    for row in result["alone"]:
        gigabytes = row["peak_bytes"] / 1e9
        lines.append(
            f"| {row['states']:,} | {row['kind']} | {1e3 * median(row['seconds']):.1f} | | | {gigabytes:.2f} GB |"
        )
    exponents = ", ".join(f"{kind} {value:.2f}" for kind, value in result["exponent"].items())
    return "\n".join([*lines, "", f"Exponent of time in the number of states, from 10,000 on: {exponents}."])


def maxent_irl_recipes(rows: list[dict[str, Any]]) -> str:
    """How good the recovered rewards are."""
    lines = [
        "| recipe | expert, trajectories | seeds | value difference | share of the optimal value | in fresh worlds "
        "| reward correlation | EPIC distance | seconds |",
        "|---" * 9 + "|",
    ]
    for row in rows:
        fresh, epic = (f"{row[name]:.3f}" if name in row else "" for name in ("fresh_value_share", "epic_distance"))
        lines.append(
            f"| `maxent_irl/{row['recipe']}` | {row['expert']}, {row['trajectories']:,} | {len(row['seeds'])} | "
            f"{row['expected_value_difference']:.3f} | {share_of(row, '**')} | {fresh} | "
            f"{row['reward_correlation']:.3f} | {epic} | {row['wall_seconds']:.0f} |"
        )
    return "\n".join(lines)


def score_of(row: dict[str, Any], mark: str = "") -> str:
    """A normalized score with its interval; one seed has none."""
    score = row["normalized_score"]
    return f"{mark}{score['mean']:.3f}{mark}" + _interval(score, 3)


def return_of(row: dict[str, Any]) -> str:
    """A return with its interval; one seed has none."""
    mean = row["return_mean"]
    digits = 1 if abs(mean["mean"]) >= 2 else 3
    return f"{mean['mean']:.{digits}f}" + _interval(mean, digits)


def _interval(statistic: dict[str, Any], digits: int) -> str:
    if len(statistic["values"]) == 1:
        return ""
    low, high = statistic["mean_ci95"]
    return f" [{low:.{digits}f}, {high:.{digits}f}]"


def share_of(row: dict[str, Any], mark: str = "") -> str:
    """The share of the optimal value that the policy of a recovered reward has, with its interval."""
    low, high = row["value_shares"]["ci95"]
    return f"{mark}{row['value_share']:.3f}{mark} [{low:.3f}, {high:.3f}]"
