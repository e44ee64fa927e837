"""Run a study: `python -m experiments study horizon --out DIR`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lit_imitation.errors import ConfigError, LitImitationError


def study(arguments: Sequence[str]) -> None:
    """Run a study: many small trainings, figures with the plotted numbers, and a page. Interrupted, it goes on."""
    parser = argparse.ArgumentParser(prog="python -m experiments study", description=study.__doc__, allow_abbrev=False)
    parser.add_argument(
        "name",
        choices=["horizon", "finetune", "sample_efficiency", "transfer", "inverse_rl"],
        help="horizon: cost against the length of the task, BC and DAgger; finetune: past a mediocre expert, by PPO "
        "from its clone; sample_efficiency: labels against environment steps, BC, DAgger, GAIL and PPO; transfer: a "
        "reward learned in one environment, used in another; inverse_rl: true and recovered rewards, and what "
        "demonstrations are worth",
    )
    parser.add_argument("--out", required=True, help="directory to write")
    parser.add_argument("--quick", action="store_true", help="the same path in about a minute, too short to mean much")
    parser.add_argument("--seeds", type=int, help="of every part (default: the study's own)")
    parser.add_argument("--tasks", nargs="+", help="of the study of transfer: maze, ant (default: both)")
    parser.add_argument("--jobs", type=int, default=1, help="processes that train side by side (default: 1)")
    options = parser.parse_args(arguments)
    if options.jobs < 1 or (options.seeds is not None and options.seeds < 1):
        raise ConfigError("--jobs and --seeds must be at least 1")

    from importlib import import_module

    from lit_imitation.utils.files import check_local, expand_user

    check_local(options.out, "--out")
    module = import_module(f"experiments.studies.{options.name}")
    settings = module.QUICK if options.quick else module.Settings()
    if options.seeds is not None:
        settings = settings.with_seeds(options.seeds)
    if options.tasks is not None:
        if options.name != "transfer":
            raise ConfigError(f"the study {options.name} has no --tasks to choose from")
        settings = settings.with_tasks(options.tasks)
    module.run(expand_user(options.out), settings, options.jobs)
    print(f"{options.out}: {options.name}.md, {options.name}.json, and the figures with their numbers")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; errors that a user can mend end it with one message and exit status 1."""
    command, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    if command != "study":
        print("usage: python -m experiments study NAME --out DIR", file=sys.stderr)
        sys.exit(2)
    try:
        study(rest)
    except LitImitationError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
