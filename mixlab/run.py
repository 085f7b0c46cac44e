"""The command `mixlab run`."""

import argparse
import importlib
import shlex
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from backends.errors import MixlabError, choices
from mixlab.common import (
    STOPPED,
    TRIAL_FAILED,
    add_ablation,
    add_overrides,
    add_store,
    data_cache,
    data_notes,
    load,
    store_option,
)

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.design.ablation import Ablation, GridTrial
    from experiments.results.store import Store
    from experiments.running.pool import Summary

HELP = "Train the trials that are not done, here, and print the table on validation."
EXAMPLE = "mixlab run experiments/ablations/tying.yaml train.steps=200 'seed=[0,1]' --jobs 2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_ablation(parser)
    parser.add_argument("--only", metavar="ID", help="just the trial whose id begins with ID")
    parser.add_argument("--resume-on", metavar="BACKEND", help="go on with it where a trial has a checkpoint")
    parser.add_argument(
        "--jobs", type=int, help="trials at a time, on equal shares of the cores (as --devices, else 1)"
    )
    parser.add_argument(
        "--devices",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="NAME,...",
        help="dealt out to the jobs in turn, such as cuda:0,cuda:1 or tpu:0,tpu:1 (each trial's run.device)",
    )
    parser.add_argument("--dry-run", action="store_true", help="list what would run, and run nothing")
    add_overrides(parser)


def command(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from experiments.design import archive
    from experiments.running import local

    jobs = _jobs(arguments)
    store, ablation, trials = load(arguments, trains=not arguments.dry_run)
    chosen = trials if arguments.only is None else _only(trials, arguments.only)
    if arguments.dry_run:
        print(_dry_run(ablation, chosen, store))
        return 0
    store.check_writable()
    console = Console(stderr=True)
    todo = local.pending(chosen, store, lambda note: console.print(note, markup=False, soft_wrap=True))
    _check_memory(todo, ablation, store)
    for line in data_notes(ablation, chosen, store):
        print(f"mixlab: {line}", file=sys.stderr)
    archive.keep(store, ablation, trials)
    # The table's imports take half a second, which is free while the workers import their frameworks.
    threading.Thread(target=importlib.import_module, args=("analysis.table.sealed",), daemon=True).start()
    summary = _train(todo, store, data_cache(ablation, store), jobs, arguments, console)
    if summary.error:
        raise MixlabError(summary.error.reason)
    if summary.left:
        done = sum(store.recorded_status(planned.trial.id) == "done" for planned in chosen)
        again = shlex.join(["mixlab", *sys.argv[1:]])
        print(f"mixlab: stopped with {done} of {len(chosen)} trials done; go on with: {again}", file=sys.stderr)
        return STOPPED
    print(_table(ablation, trials, store))
    failed = [planned for planned in chosen if store.recorded_status(planned.trial.id) == "failed"]
    return TRIAL_FAILED if failed or summary.failed else 0


def _table(ablation: "Ablation", trials: "list[GridTrial]", store: "Store") -> str:
    """The table on validation, and how to see it on test."""
    from analysis.frame import trials_frame
    from analysis.table.sealed import sealed_table

    table = sealed_table(ablation, trials_frame(ablation, trials, store))
    return f"{table}\ntest numbers: mixlab report {ablation.name}{store_option(store)}"


def _check_memory(todo: "list[GridTrial]", ablation: "Ablation", store: "Store") -> None:
    """Raises: MixlabError: the data of a trial exceeds the memory."""
    from experiments import data

    for trial in {planned.trial.info.content: planned.trial for planned in todo}.values():
        data.check_memory(trial.data, trial.info, data_cache(ablation, store), ablation.where)


def _jobs(arguments: argparse.Namespace) -> int:
    """The number of trials at a time.

    Raises: MixlabError: an option says too few, or names no device or no backend.
    """
    import backends
    from backends import devices

    jobs = max(1, len(arguments.devices)) if arguments.jobs is None else int(arguments.jobs)
    if jobs < 1:
        raise MixlabError(f"command line: --jobs: expected at least 1, got {jobs}")
    for device in arguments.devices:
        devices.read(device, "command line: --devices")
    if arguments.resume_on is not None:
        backends.check(arguments.resume_on)
    return jobs


def _train(
    todo: "list[GridTrial]", store: "Store", cache: Path, jobs: int, arguments: argparse.Namespace, console: "Console"
) -> "Summary":
    """Run the trials, and show their progress on the console."""
    import backends
    from experiments.design.apart import apart
    from experiments.running import local, pool, progress

    own_cache = any(planned.trial.run.compile_cache for planned in todo)
    shared = pool.Pool(jobs, arguments.devices, compile_cache=None if own_cache else store.compiled)
    labels = apart({planned.trial.id: planned.label for planned in todo})
    with progress.reporter(console, len(todo), labels) as reporter:
        run = local.LocalRun(todo, store, cache, shared, reporter, arguments.resume_on)
        for backend in dict.fromkeys(run.queue.backends.values()):
            backends.check_installed(backend)
        return run.run()


def _only(trials: "list[GridTrial]", prefix: str) -> "list[GridTrial]":
    matches = [planned for planned in trials if planned.trial.id.startswith(prefix)]
    if not matches or not prefix:
        ids = [planned.trial.id for planned in trials]
        raise MixlabError(
            f"command line: --only: expected the start of a trial's id, got {prefix!r}; {choices(prefix, ids)}"
        )
    return matches


def _dry_run(ablation: "Ablation", chosen: "list[GridTrial]", store: "Store") -> str:
    from analysis.planning.known import Known
    from analysis.terminal import plan_lines

    known = Known(ablation, chosen, store)
    if not known.left:
        return f"nothing to run: all {len(chosen)} trials have ended"
    return "\n".join([*plan_lines.summary(known), "", *plan_lines.listed(known, known.left, every=False)])
