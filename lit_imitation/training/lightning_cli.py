"""The commands `fit`, `validate`, `test` and `predict`: LightningCLI, with a directory and a summary for every run."""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse import DefaultHelpFormatter, set_parsing_settings
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar as Progress
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_imitation.errors import ConfigError, MissingExtraError, TrainingError, UsageError
from lit_imitation.methods.method import Method
from lit_imitation.policies.checkpoints import LOADING_ERRORS, find_checkpoint, read_checkpoint
from lit_imitation.training.checkpoint_io import AtomicCheckpointIO
from lit_imitation.training.foreign import read_config
from lit_imitation.training.loggers import MetricsCSV
from lit_imitation.training.progress import ProgressBar, ProgressLines
from lit_imitation.training.recipes import resolve_recipes
from lit_imitation.training.run import LastCheckpoint, RunDirectory, best_checkpoint
from lit_imitation.training.trajectories import TrajectoryWriter
from lit_imitation.training.usage import Recipe, explain, list_classes, read_recipes
from lit_imitation.utils.distributed import exit_with_parent, is_lost_peer
from lit_imitation.utils.files import FileLock, check_local, expand_user, remove_leftovers
from lit_imitation.utils.integrity import check_file
from lit_imitation.utils.program import resume_command
from lit_imitation.utils.trust import refuse_url, trust_scope

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

TRAINER_DEFAULTS = {
    "num_sanity_val_steps": 0,  # evaluating an untrained policy takes time and shows little
    "enable_model_summary": False,
}
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

MORE_HELP = """\
more options:
  fit --model.help GAIL                                      options of a method
  fit --model GAIL --model.learner.help PPO                  of its learner
  fit --model GAIL --model.discriminator.help Discriminator  of its discriminator
  fit --model BC --model.policy.help GaussianPolicy          of its policy
  fit --data.help ImitationDataModule                        of the data
  fit --trainer.callbacks.help lit_imitation.DAggerCallback  of a callback
  fit --config bc/lunar_lander --print_config                all settings of a recipe

Set an option of the model with --model.NAME VALUE, and one of the data with --data.NAME VALUE.
"""
"""End of the help of each command: how to list the options of model, data and callbacks."""

NO_CHECKPOINT = "{} needs a trained policy: add --ckpt_path FILE, or --ckpt_path DIR with the directory of a run"


def run(command: str, arguments: Sequence[str]) -> None:
    """Run one of `fit`, `validate`, `test`, `predict`."""
    _silence_warnings(command)
    if "OMP_NUM_THREADS" not in os.environ:
        # Networks of this size gain nothing from a second thread, and can be 100 times slower where cores are shared.
        torch.set_num_threads(1)
    refuse_urls(arguments)
    arguments = _add_save_dir(resolve_recipes(list(arguments)))
    named = [value for key, value in _options_with_values(arguments) if key.startswith(("--model", "--data"))]
    with trust_scope(flag(arguments, "--trust"), named):
        _run(command, arguments)


def _run(command: str, arguments: list[str]) -> None:
    given = arguments
    if command != "fit":
        arguments = add_checkpoint_config(command, arguments)
    elif not any(argument.startswith("-") for argument in arguments):
        raise ConfigError(
            "fit needs a recipe: add --config NAME (`lit-imitation recipes` lists them), --config FILE, or --model and "
            "--data"
        )
    CLI.command, CLI.running, CLI.latest = command, False, None
    changes = ("--model", "--data", "--config", "-c", "--seed_everything")
    CLI.changed = any(argument.startswith(changes) for argument in given)
    CLI.arguments, CLI.recipes = arguments, read_recipes(arguments)
    try:
        with ExitStack() as CLI.resources:
            CLI(
                LightningModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=None,
                trainer_class=Trainer,
                trainer_defaults=TRAINER_DEFAULTS,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                parser_kwargs={
                    "allow_abbrev": False,  # a mistyped option is an error, not a guess
                    "formatter_class": _HelpFormatter,
                    command: {
                        "usage": "%(prog)s --config FILE [options]",  # the full usage has 90 lines
                        "epilog": MORE_HELP,
                        "allow_abbrev": False,
                    },
                },
                args=[command, *arguments],
            )
    except MisconfigurationException as error:
        raise ConfigError(f"Lightning's Trainer: {error}") from error
    except LOADING_ERRORS as error:
        if is_lost_peer(error):
            _end_without_peer(error)
        if not _while_restoring(error, option(arguments, "--ckpt_path") is not None):
            raise
        reason = (str(error) or "no text").strip().splitlines()[0]
        raise ConfigError(
            f"--ckpt_path {option(arguments, '--ckpt_path')} is damaged, or it belongs to another kind of run: "
            f"{type(error).__name__}: {reason:.300}"
        ) from error
    except SIGTERMException:
        sys.exit(128 + signal.SIGTERM)  # Lightning's exception alone would give exit status 0
    except SystemExit as error:
        if CLI.running and not error.code:  # raised by other code than the parser, and would give exit status 0
            *_, frame = traceback.extract_tb(error.__traceback__)
            raise TrainingError(
                f"the run was ended by SystemExit in {frame.filename}, line {frame.lineno}: {frame.line}"
            ) from error
        raise


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the line breaks of `MORE_HELP`."""


def _end_without_peer(error: BaseException) -> NoReturn:
    """End this process because another process of the run is gone."""
    trainer = CLI.latest
    method = trainer.lightning_module if trainer is not None else None
    if isinstance(method, Method) and method.signals.told:
        sys.exit(128 + signal.SIGTERM)
    reason = (str(error) or "no text").strip().splitlines()[0]
    where, advice = "a process", ""
    if trainer is not None:
        where = f"process {trainer.global_rank} of {trainer.world_size}"
        if trainer.state.fn == "fit":
            advice = (
                "; training up to the end of the last epoch is saved; resume with: "
                f"{resume_command(trainer.default_root_dir)}"
            )
    raise TrainingError(
        f"{where} stopped: another process of the run ended or does not answer ({reason:.200}){advice}"
    ) from error


def _while_restoring(error: BaseException, resumed: bool) -> bool:
    """Whether an error arose while Lightning restored a checkpoint, or in an optimizer that uses restored state.

    Errors in a closure, which is the method's own code, are not caused by the checkpoint.

    Args:
        error: The error, with its traceback.
        resumed: Whether the run was given a checkpoint.
    """
    package, optimizers, inside = str(Path(torch.__file__).parent), str(Path(torch.optim.__file__).parent), False
    for frame, _ in traceback.walk_tb(error.__traceback__):
        file, function = frame.f_code.co_filename, frame.f_code.co_name
        if file.endswith("checkpoint_connector.py") and function.lstrip("_").startswith(("restore", "resume")):
            return True
        inside = file.startswith(optimizers) or (inside and file.startswith(package))
    return resumed and inside


def _silence_warnings(command: str) -> None:
    """Silence Lightning's warnings about torch's DataLoader and its own internals, and its advertisements."""
    # A checkpoint that is only evaluated needs no state of callbacks.
    unneeded = ("Be aware that when using `ckpt_path`", "The dirpath has changed") if command != "fit" else ()
    for text in (
        *unneeded,
        "Couldn't infer the batch indices",
        "does not have many workers",
        "Using ModelCheckpoint with manual optimization",  # saves after the step, as intended
        "LightningCLI's args parameter",
        "isinstance\\(treespec, LeafSpec\\)",
        "You have overridden `transfer_batch_to_device`",
        "is smaller than the logging interval",
        "Found .* module\\(s\\) in eval mode",  # intended: dropout is off during rollouts and updates
        "Checkpoint directory .* exists and is not empty",
    ):
        warnings.filterwarnings("ignore", f".*{text}")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "💡" not in record.getMessage())


def add_checkpoint_config(command: str, arguments: list[str]) -> list[str]:
    """Put the checkpoint's configuration first, if the arguments have a checkpoint and no `--config`.

    Raises:
        ConfigError: There is neither a checkpoint nor a `--config`, or the checkpoint has no configuration.
    """
    path = option(arguments, "--ckpt_path")
    given = any(a.split("=")[0] in ("--config", "-c", "--print_config", "--help", "-h") for a in arguments)
    if path is None and not given:
        raise ConfigError(NO_CHECKPOINT.format(command))
    if path is None or given or path in ("last", "best"):
        return arguments
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    if "config" not in checkpoint:
        raise ConfigError(f"{file} has no configuration; add --config with the recipe of its run")
    return ["--config", yaml.safe_dump(read_config(checkpoint["config"], file)), *arguments]


def refuse_urls(arguments: Sequence[str]) -> None:
    """Raise `ConfigError` if data, model, recipe or checkpoint is a URL, or a recipe is not a regular file."""
    for key, value in _options_with_values(arguments):
        if "env_kwargs" in key or not key.startswith(("--config", "-c", "--ckpt_path", "--model", "--data")):
            continue
        if not value.lstrip().startswith("{"):
            refuse_url(value, key)
        if key in ("--config", "-c"):
            _check_recipe(value)


def _options_with_values(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options of a command line with their values; the value is empty if there is none."""
    for i, argument in enumerate(arguments):
        key, equals, value = argument.partition("=")
        if key.startswith("-"):
            yield key, value if equals else "".join(arguments[i + 1 : i + 2])


def _check_recipe(value: str) -> None:
    if "\n" in value or value.startswith(("/dev/fd/", "/proc/self/fd/")) or not os.path.exists(value):
        return  # YAML text, a pipe of the shell, or a missing file, which the parser reports
    try:
        recipe = yaml.safe_load(check_file(value).read_bytes())
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return  # the parser reports this too
    for part in ("model", "data"):
        if isinstance(recipe, dict):
            for key, text in _texts(recipe.get(part), part):
                refuse_url(text, f"{value}: {key}")


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Strings of a recipe that may name files or classes, each with its dotted path."""
    if isinstance(value, dict):
        for key, one in value.items():
            if key != "env_kwargs":
                yield from _texts(one, f"{where}.{key}")
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, where)
    elif isinstance(value, str):
        yield where, value


def flag(arguments: Sequence[str], name: str) -> bool:
    """Value of the option `--name true` or `--name=false`; false if it is missing.

    Raises:
        ConfigError: The value is neither true nor false.
    """
    value = option(arguments, name)
    if value is None and name in arguments:
        value = ""
    if value is not None and value.lower() not in ("true", "false"):
        raise ConfigError(f"{name} is {value!r}; write {name} true or {name} false")
    return value is not None and value.lower() == "true"


def _add_save_dir(arguments: list[str]) -> list[str]:
    """Add a directory, the run's own, for loggers that need one if the arguments give none."""
    logger = (option(arguments, "--trainer.logger") or "").rpartition(".")[2]
    if logger in ("TensorBoardLogger", "CSVLogger") and option(arguments, "--trainer.logger.save_dir") is None:
        return [*arguments, "--trainer.logger.save_dir", "."]
    return arguments


def _check_logger(class_path: str) -> None:
    """Raise `MissingExtraError` if the package that a logger needs is not installed."""
    name = class_path.rpartition(".")[2]
    packages = LOGGER_PACKAGES.get(name, ())
    if packages and not any(find_spec(package) for package in packages):
        extra = '"lit-imitation[tensorboard]"' if name == "TensorBoardLogger" else packages[0]
        raise MissingExtraError(f"trainer.logger {name} needs {packages[0]}: pip install {extra}")


def option(arguments: Sequence[str], name: str) -> str | None:
    """Last value of `--name value` or `--name=value`; `None` if the option is missing."""
    value = None
    for i, argument in enumerate(arguments):
        if argument == name and i + 1 < len(arguments):
            value = arguments[i + 1]
        elif argument.startswith(f"{name}="):
            value = argument.partition("=")[2]
    return value


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
        parent = self._runs_folder()
        path = self.checkpoint
        if trainer.default_root_dir is None:
            if not first and RUN_DIR_VARIABLE in os.environ:
                trainer.default_root_dir = os.environ[RUN_DIR_VARIABLE]
            elif path in ("last", "best"):
                trainer.default_root_dir = str(_newest_run(parent))
            elif self.subcommand != "fit" and path and (run := _run_of(find_checkpoint(path))) is not None:
                own = (
                    self.subcommand != "validate" and not self.changed
                )  # a change of model or data would not fit the run's own files
                folder = run if own else self._new_directory(run, writes, f"{self.subcommand}_")
                trainer.default_root_dir = str(folder)
            else:
                trainer.default_root_dir = str(self._new_directory(parent, writes))
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
            self._lock(directory)
        if self.subcommand == "fit" and first and not path and (directory / "checkpoints").is_dir():
            raise ConfigError(
                f"{directory} already holds a run: continue it with --ckpt_path last, or choose another "
                "--trainer.default_root_dir"
            )
        for logger in _as_list(trainer.logger):
            _check_logger(str(getattr(logger, "class_path", "")))
            if hasattr(logger, "init_args") and "save_dir" in logger.init_args:
                folder = logger.init_args.save_dir
                logger.init_args.save_dir = str(directory if folder in (None, ".") else expand_user(folder))

    @staticmethod
    def _new_directory(parent: Path, writes: bool, prefix: str = "") -> Path:
        """Directory named after the time, created at once so that a run of the same second gets another one."""
        name = f"{prefix}{time.strftime('%Y-%m-%d_%H-%M-%S')}"
        directory = parent / name
        if not writes:
            return directory
        parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(2):
            try:
                directory.mkdir()
                break
            except FileExistsError:
                directory = parent / f"{name}_{number}"
        CLI.resources.callback(_remove_if_empty, directory)
        return directory

    @staticmethod
    def _lock(directory: Path) -> None:
        """Lock the directory until this run ends, and remove half-written files of killed runs."""
        if not directory.is_dir():
            directory.mkdir(parents=True, exist_ok=True)
            CLI.resources.callback(_remove_if_empty, directory)
        advice = "wait for that run or stop it, or choose another --trainer.default_root_dir"
        CLI.resources.callback(FileLock(directory / ".lock", str(directory), advice).release)
        for folder in (directory, *(directory / name for name in ("checkpoints", "dataset", "to_label"))):
            remove_leftovers(folder)

    def _runs_folder(self) -> Path:
        """Folder of the runs of this method and environment, `runs/<method>/<env>`."""
        env_id = str(self.settings.data.init_args.get("env_id", "")) if self.settings.get("data") else ""
        return Path("runs") / method_name(self.settings) / env_id.replace("/", "_").replace(":", "_")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add what every run has: `metrics.csv`, progress, atomic checkpoints, the run's directory."""
        trainer = self.config_init[self.subcommand].trainer
        directory, logger = trainer.default_root_dir, trainer.logger
        loggers: list[Logger] = [] if logger is False else [MetricsCSV(directory)]
        loggers += [one for one in _as_list(logger) if isinstance(one, Logger)]
        self.run_directory = RunDirectory(self.kept_config)
        callbacks = [*_as_list(trainer.callbacks), self.run_directory]
        if trainer.enable_progress_bar is not False and not any(isinstance(one, Progress) for one in callbacks):
            callbacks.append(ProgressBar() if sys.stdout.isatty() else ProgressLines())
        if trainer.enable_checkpointing is not False:
            callbacks.append(LastCheckpoint())
        if self.subcommand == "predict":
            callbacks.append(TrajectoryWriter())
        plugins = [*_as_list(trainer.plugins), AtomicCheckpointIO()]
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


def method_name(settings: Any) -> str:
    """Name of the method of a parsed configuration: `dagger`, the learner of `RL`, or the model."""

    def name(one: Any) -> str:
        return str(getattr(one, "class_path", "")).rpartition(".")[2].lower()

    if any(name(one) == "daggercallback" for one in _as_list(settings.trainer.callbacks)):
        return "dagger"
    model = name(settings.model)
    return (name(settings.model.init_args.get("learner")) or "ppo") if model == "rl" else model


def _as_list(value: Any) -> list[Any]:
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _run_of(checkpoint: Path) -> Path | None:
    """Directory of the run that a checkpoint belongs to, if it is writable."""
    run = checkpoint.resolve().parent.parent
    belongs = checkpoint.parent.name == "checkpoints" and (run / "config.yaml").is_file()
    return run if belongs and os.access(run, os.W_OK) else None


def _remove_if_empty(directory: Path) -> None:
    """Remove the directory of a run that failed before it wrote anything."""
    with suppress(OSError):
        directory.rmdir()


def _watch_first_process(first: bool) -> None:
    """Make the launched processes exit after the first one, which cannot stop them if it is killed."""
    if first:
        os.environ[FIRST_PROCESS_VARIABLE] = str(os.getpid())
    elif os.environ.get(FIRST_PROCESS_VARIABLE) == str(os.getppid()):
        exit_with_parent(os.getppid(), grace=20.0)


def _newest_run(parent: Path) -> Path:
    runs = [run for run in parent.glob("*") if (run / "checkpoints").is_dir()]
    if not runs:
        raise ConfigError(f"no run to continue in {parent}; add --trainer.default_root_dir DIR")
    return max(runs, key=lambda run: run.stat().st_mtime)
