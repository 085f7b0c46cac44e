"""The command `mixlab run`."""

import argparse
import itertools
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
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
    waiting_lines,
)

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.planning.known import Known
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

    from backends import devices
    from experiments.design import archive, tune
    from experiments.running.rounds import rounds

    _check_options(arguments)
    store, ablation, trials = load(arguments, trains=not arguments.dry_run)
    # A trial that is named is trained to its end, also one that halving has pruned.
    chosen = trials if arguments.only is None else [replace(one, until=None) for one in _only(trials, arguments.only)]
    is_whole, alone = arguments.only is None, replace(ablation, tune=None)  # what is named is in no stage of halving
    if arguments.dry_run:
        from analysis.planning.known import Known

        known = Known.of(ablation, trials, store) if is_whole else Known(alone, chosen, store)
        print("\n".join([_dry_run(known), *waiting_lines(ablation, trials)]))
        return 0
    store.check_writable()
    if not is_whole:
        _check_starts(chosen, store)
    for device, backend in itertools.product(arguments.devices, {planned.trial.backend for planned in chosen}):
        devices.check_backend(device, arguments.resume_on or backend, "command line: --devices")
    console = Console(stderr=True)

    def warn(note: str) -> None:
        console.print(note, markup=False, soft_wrap=True)

    for line in data_notes(ablation, chosen, store):
        print(f"mixlab: {line}", file=sys.stderr)
    named = ((trials, todo) for _, todo in rounds(alone, chosen, store, warn))
    each = rounds(ablation, trials, store, warn) if is_whole else named
    failed: dict[str, str] = {}
    said: dict[str, str] = {}  # setting -> what was pruned
    for trials, todo in each:
        if is_whole and ablation.tune and ablation.tune.halving:
            _say_pruned(ablation, trials, store, said)
        _check_memory(todo, ablation, store)
        archive.keep(store, ablation, trials)
        summary = _train(todo, store, data_cache(ablation, store), _jobs(arguments, chosen), arguments, console)
        if summary.error:
            raise MixlabError(summary.error.reason)
        if summary.left:
            return _stopped(ablation, trials if is_whole else chosen, store)
        failed |= summary.failed
    for sentence in _choices(ablation, trials, store):
        print(f"mixlab: {sentence}", file=sys.stderr)
    _say_saved(failed, store)
    in_table = [planned for planned in trials if planned.in_table]
    if in_table:
        print(_table(ablation, trials, store))
    asked = [planned for planned in trials if not planned.tunes] if is_whole else chosen
    waiting = is_whole and tune.num_waiting(ablation, trials) > 0
    return TRIAL_FAILED if waiting or any(_has_failed(planned, failed, store) for planned in asked) else 0


def _check_starts(trials: "list[GridTrial]", store: "Store") -> None:
    """Raises: MixlabError: a trial that is named begins from the weights of one that is not done, nor named."""
    ids = {planned.trial.id for planned in trials}
    for planned in trials:
        start = planned.trial.start_id
        if start and start not in ids and store.recorded_status(start) != "done":
            told = f"{planned.trial.id} ({planned.label}) begins from the weights of trial {start}, which is not done"
            raise MixlabError(f"command line: --only: {told}; run that first: --only {start}")


def _has_failed(planned: "GridTrial", failed: dict[str, str], store: "Store") -> bool:
    """Whether a trial has failed now, or is recorded as failed."""
    return planned.trial.id in failed or store.recorded_status(planned.trial.id) == "failed"


def _say_saved(failed: "Iterable[str]", store: "Store") -> None:
    """Say which trials that have failed go on from a saved state, if they are run again."""
    from experiments.results import checkpoint
    from experiments.results.record import is_final

    steps = {trial_id: checkpoint.newest_step(store.checkpoint(trial_id)) for trial_id in failed}
    records = {trial_id: store.sound_record(trial_id) for trial_id, step in steps.items() if step}
    saved = [f"{key} at step {steps[key]:,}" for key, record in records.items() if record and not is_final(record)]
    if saved:
        print(f"mixlab: saved: {', '.join(saved)}; run again to go on from there", file=sys.stderr)


def _stopped(ablation: "Ablation", trials: "list[GridTrial]", store: "Store") -> int:
    """Say how far it is, and how to go on."""
    from experiments.design import stages
    from experiments.results.states import HALTED, state

    halts = stages.halts(ablation, trials, store)
    states = [state(store, planned.trial.id, halts.get(planned.trial.id)).status for planned in trials]
    halted = "".join(f", {states.count(status)} {status}" for status in HALTED if status in states)
    again = shlex.join(["mixlab", *sys.argv[1:]])
    sentence = f"stopped with {states.count('done')} of {len(trials)} trials done{halted}; go on with: {again}"
    print(f"mixlab: {sentence}", file=sys.stderr)
    return STOPPED


def _say_pruned(ablation: "Ablation", trials: "list[GridTrial]", store: "Store", said: dict[str, str]) -> None:
    """Say what was pruned of each setting, where it has not been said."""
    from analysis.tuned import point_text, pruned_text
    from experiments.design import tune

    for choice in tune.choose(ablation, trials, store):
        label, text = point_text(ablation, choice.setting.told), pruned_text(choice)
        if said.get(label, "") != text:
            where = f"{label}: " if label else ""
            print(f"mixlab: {where}{text}, {len(choice.going)} left", file=sys.stderr)
        said[label] = text


def _choices(ablation: "Ablation", trials: "list[GridTrial]", store: "Store") -> "Iterator[str]":
    """A sentence on each choice of what is tuned."""
    from analysis.tuned import choice_text
    from experiments.design import tune

    for choice in tune.choose(ablation, trials, store):
        yield choice_text(ablation, choice)


def _table(ablation: "Ablation", trials: "list[GridTrial]", store: "Store") -> str:
    """The table on validation, and how to see it on test."""
    from analysis.frame import trials_frame
    from analysis.table.sealed import sealed_table

    table = sealed_table(ablation, trials_frame(ablation, trials, store), store)
    return f"{table}\ntest numbers: mixlab report {ablation.name}{store_option(store)}"


def _check_memory(todo: "list[GridTrial]", ablation: "Ablation", store: "Store") -> None:
    """Raises: MixlabError: the data of a trial exceeds the memory."""
    from experiments import data

    for trial in {(one.trial.info.content, one.trial.data.storage): one.trial for one in todo}.values():
        data.check_memory(trial.data, trial.info, data_cache(ablation, store), ablation.where)


def _check_options(arguments: argparse.Namespace) -> None:
    """Raises: MixlabError: an option says too few jobs, or names no device or no backend."""
    import backends
    from backends import devices

    if arguments.jobs is not None and arguments.jobs < 1:
        raise MixlabError(f"command line: --jobs: expected at least 1, got {arguments.jobs}")
    for device in arguments.devices:
        devices.read(device, "command line: --devices")
    if arguments.resume_on is not None:
        backends.check(arguments.resume_on)


def _jobs(arguments: argparse.Namespace, chosen: "Sequence[GridTrial]") -> int:
    """The number of trials at a time: as many as the devices can train, where it is not given."""
    if arguments.jobs is not None:
        return int(arguments.jobs)
    return max(1, len(arguments.devices) // max((planned.trial.run.devices for planned in chosen), default=1))


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


def _dry_run(known: "Known") -> str:
    from analysis.terminal import plan_lines

    if not known.left:
        return f"nothing to run: all {len(known.trials)} trials have ended"
    ids = {planned.trial.id for planned in known.left}
    left = [planned for planned in known.trials if planned.trial.id in ids]
    return "\n".join([*plan_lines.summary(known), "", *plan_lines.listed(known, left, every=False)])
