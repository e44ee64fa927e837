"""`CLI`: LightningCLI with a directory, a summary and plain errors for every run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import set_parsing_settings
from lightning import Trainer
from lightning.pytorch.callbacks import ProgressBar as Progress
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger

from lit_imitation.errors import ConfigError, MissingExtraError, UsageError
from lit_imitation.policies.checkpoints import find_checkpoint
from lit_imitation.training.arguments import NO_CHECKPOINT
from lit_imitation.training.checkpoint_io import AtomicCheckpointIO
from lit_imitation.training.directories import as_list, lock_directory, new_directory, newest_run, run_of, runs_folder
from lit_imitation.training.loggers import MetricsCSV
from lit_imitation.training.progress import ProgressBar, ProgressLines
from lit_imitation.training.run import LastCheckpoint, RunDirectory, best_checkpoint
from lit_imitation.training.trajectories import TrajectoryWriter
from lit_imitation.training.usage import Recipe, explain, list_classes
from lit_imitation.utils.distributed import exit_with_parent
from lit_imitation.utils.files import check_local, expand_user

# By default, Lightning's parser reads recipes from URLs, and builds any class that an untyped value names.
set_parsing_settings(
    config_read_mode_fsspec_enabled=False, config_read_mode_urls_enabled=False, instantiate_subclass_spec_in_any=False
)

RUN_DIR_VARIABLE = "LIT_IMITATION_RUN_DIR"
"""Environment variable that gives the other processes of a DDP run the directory of the first one."""

FIRST_PROCESS_VARIABLE = "LIT_IMITATION_FIRST_PROCESS"
"""Environment variable that gives the other processes the PID of the first one."""

RANK_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
"""Environment variables in which launchers (Lightning, torchrun, SLURM, MPI) number processes; all 0 in the first."""

MAX_EPOCHS = 100
"""Number of epochs if nothing else ends a run."""

LOGGER_PACKAGES = {
    "TensorBoardLogger": ("tensorboard", "tensorboardX"),
    "MLFlowLogger": ("mlflow",),
    "CometLogger": ("comet_ml",),
    "NeptuneLogger": ("neptune",),
}
"""Packages that Lightning's loggers need; one of each list is enough, and this package installs none."""

TRUST_HELP = "let files name classes and functions outside this package, and open files that can execute code"


class CLI(LightningCLI):
    """One subcommand of LightningCLI, with this package's directory, loggers and callbacks as defaults."""

    command = "fit"
    changed = False
    """Whether the command line changes model, data or seed of a checkpoint."""
    running = False
    """Whether the command line has been parsed."""
    resources = ExitStack()
    """Releases the lock on the run's directory at the end."""
    latest: Trainer | None = None
    """Trainer of the run."""
    arguments: Sequence[str] = ()
    recipes: Sequence[Recipe] = ()

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Create Lightning's parser, with error messages of one line."""
        parser = super().init_parser(**kwargs)

        def error(message: str, ex: Exception | None = None) -> NoReturn:
            raise UsageError(explain(message, self.arguments, self.recipes)) from ex

        parser.error = error  # type: ignore[method-assign]
        return parser

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Only the subcommand in use, since building the options of all four takes seconds."""
        return {CLI.command: LightningCLI.subcommands()[CLI.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add `--trust`, whose value `run` reads before parsing, and plain titles for model and data."""
        parser.add_argument("--trust", type=bool, default=False, help=TRUST_HELP)
        assert parser.groups is not None
        for name, what in (("model", "Method to train"), ("data", "Demonstrations and environment")):
            parser.groups[name].title = f"{what} (--{name}.help CLASS lists its options)"

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, check the seed, and remove the checkpoint, from which Lightning would read hyper-parameters."""
        super().parse_arguments(parser, args)
        settings = self.config[self.config.subcommand]
        seed = settings.seed_everything
        if not isinstance(seed, bool) and seed is not None and not 0 <= seed < 2**32:
            raise ConfigError(f"seed_everything is {seed}; it must be in [0, 2^32)")
        self.checkpoint, settings.ckpt_path = settings.get("ckpt_path"), None

    @property
    def settings(self) -> Any:
        """Parsed configuration of the subcommand."""
        return self.config[self.subcommand]

    def before_instantiate_classes(self) -> None:
        """Choose the run's directory, and find the checkpoint that `last` or `best` means there."""
        trainer, settings = self.settings.trainer, self.settings
        CLI.running = True
        for name in ("model", "data"):  # without a class_path, the parser uses the base class
            if settings.get(name) and settings[name].class_path.rpartition(".")[2].startswith("Lightning"):
                raise UsageError(f"{name}: class_path is missing; it must be {list_classes(name)}")
        endless = trainer.max_epochs is None and trainer.max_steps == -1 and trainer.max_time is None
        counts_steps = bool(settings.get("data")) and settings.data.get("init_args", {}).get("env_steps") is not None
        if endless and not counts_steps:
            trainer.max_epochs = MAX_EPOCHS
        # config.yaml omits directory and checkpoint, so that it can start another run.
        kept = settings.clone()
        kept.trainer.default_root_dir = kept.ckpt_path = None
        kept.pop("trust", None)  # every call must give it again
        self.kept_config = self._parser(self.subcommand).dump(kept, skip_none=False, skip_validation=True)
        if endless and counts_steps:
            trainer.max_epochs = -1
        first = all(os.environ.get(name, "0") in ("", "0") for name in RANK_VARIABLES)
        _watch_first_process(first)
        writes = first and not trainer.fast_dev_run
        parent = runs_folder(settings)
        path = self.checkpoint
        if trainer.default_root_dir is None:
            if not first and RUN_DIR_VARIABLE in os.environ:
                trainer.default_root_dir = os.environ[RUN_DIR_VARIABLE]
            elif path in ("last", "best"):
                trainer.default_root_dir = str(newest_run(parent))
            elif self.subcommand != "fit" and path and (run := run_of(find_checkpoint(path))) is not None:
                own = (
                    self.subcommand != "validate" and not self.changed
                )  # a change of model or data would not fit the run's own files
                folder = run if own else new_directory(run, writes, CLI.resources, f"{self.subcommand}_")
                trainer.default_root_dir = str(folder)
            else:
                trainer.default_root_dir = str(new_directory(parent, writes, CLI.resources))
        check_local(str(trainer.default_root_dir), "--trainer.default_root_dir")
        directory = expand_user(trainer.default_root_dir)
        trainer.default_root_dir = str(directory)
        os.environ[RUN_DIR_VARIABLE] = str(directory)
        if path in ("last", "best"):
            file = directory / "checkpoints" / f"{path}.ckpt"
            if not file.is_file() and not (self.subcommand == "fit" and directory.is_dir()):
                raise ConfigError(f"--ckpt_path {path}: {file} does not exist")
            settings.ckpt_path = str(file) if file.is_file() else None  # a run killed before its first checkpoint
        elif path:
            settings.ckpt_path = str(find_checkpoint(path))
        elif self.subcommand != "fit":
            raise ConfigError(NO_CHECKPOINT.format(self.subcommand))
        if settings.get("weights_only") is None:
            settings.weights_only = True  # a checkpoint from elsewhere must not execute code
        if self.subcommand in ("validate", "test"):
            settings.verbose = False  # the summary's table has the same metrics
        if writes:
            lock_directory(directory, CLI.resources)
        if self.subcommand == "fit" and first and not path and (directory / "checkpoints").is_dir():
            raise ConfigError(
                f"{directory} already holds a run: continue it with --ckpt_path last, or choose another "
                "--trainer.default_root_dir"
            )
        for logger in as_list(trainer.logger):
            _check_logger(str(getattr(logger, "class_path", "")))
            if hasattr(logger, "init_args") and "save_dir" in logger.init_args:
                folder = logger.init_args.save_dir
                logger.init_args.save_dir = str(directory if folder in (None, ".") else expand_user(folder))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add what every run has: `metrics.csv`, progress, atomic checkpoints, the run's directory."""
        trainer = self.config_init[self.subcommand].trainer
        directory, logger = trainer.default_root_dir, trainer.logger
        loggers: list[Logger] = [] if logger is False else [MetricsCSV(directory)]
        loggers += [one for one in as_list(logger) if isinstance(one, Logger)]
        self.run_directory = RunDirectory(self.kept_config)
        callbacks = [*as_list(trainer.callbacks), self.run_directory]
        if trainer.enable_progress_bar is not False and not any(isinstance(one, Progress) for one in callbacks):
            callbacks.append(ProgressBar() if sys.stdout.isatty() else ProgressLines())
        if trainer.enable_checkpointing is not False:
            callbacks.append(LastCheckpoint())
        if self.subcommand == "predict":
            callbacks.append(TrajectoryWriter())
        plugins = [*as_list(trainer.plugins), AtomicCheckpointIO()]
        kwargs |= {"logger": loggers or False, "callbacks": callbacks, "plugins": plugins}
        try:
            instance = super().instantiate_trainer(**kwargs)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
        for callback in instance.checkpoint_callbacks:
            check_local(str(getattr(callback, "dirpath", "")), f"{type(callback).__name__}.dirpath")
            if getattr(callback, "dirpath", "") is None:
                callback.dirpath = str(Path(directory) / "checkpoints")  # type: ignore[attr-defined]
            if instance.fast_dev_run and hasattr(callback, "save_last"):  # type: ignore[attr-defined]
                callback.save_last = False  # Lightning would write the last checkpoint even in a fast_dev_run
        for one in instance.loggers:
            one.log_hyperparams(yaml.safe_load(self.kept_config))
        CLI.latest = instance
        return instance

    def after_fit(self) -> None:
        """Test the best policy and print the summary."""
        best = best_checkpoint(self.trainer)
        # A WeightAveraging callback would load the weights before averaging; the checkpoint already has the average.
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        self.trainer.callbacks = [one for one in callbacks if not isinstance(one, WeightAveraging)]  # type: ignore[attr-defined]
        paused = any(getattr(one, "paused", "") for one in callbacks)  # waits for labels of a person
        if not self.trainer.interrupted and not paused:
            self.trainer.test(
                self.model, datamodule=self.datamodule, ckpt_path=best or None, verbose=False, weights_only=True
            )
            self._print_summary()

    def after_validate(self) -> None:
        """Print the summary."""
        self._print_summary()

    def after_test(self) -> None:
        """Print the summary."""
        self._print_summary()

    def _print_summary(self) -> None:
        if self.trainer.is_global_zero and self.run_directory.summary:
            self.run_directory.print_table(str(self.trainer.default_root_dir))


def _check_logger(class_path: str) -> None:
    """Raise `MissingExtraError` if the package that a logger needs is not installed."""
    name = class_path.rpartition(".")[2]
    packages = LOGGER_PACKAGES.get(name, ())
    if packages and not any(find_spec(package) for package in packages):
        extra = '"lit-imitation[tensorboard]"' if name == "TensorBoardLogger" else packages[0]
        raise MissingExtraError(f"trainer.logger {name} needs {packages[0]}: pip install {extra}")


def _watch_first_process(first: bool) -> None:
    """Make the launched processes exit after the first one, which cannot stop them if it is killed."""
    if first:
        os.environ[FIRST_PROCESS_VARIABLE] = str(os.getpid())
    elif os.environ.get(FIRST_PROCESS_VARIABLE) == str(os.getppid()):
        exit_with_parent(os.getppid(), grace=20.0)
