"""The command `mixlab bench`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends.errors import MixlabError
from mixlab.common import add_ablation, add_overrides, add_store, data_cache, load

HELP = "Measure a training step against the machine's limit and other people's code, or where a grid's time goes."
EXAMPLE = "mixlab bench step --config cifar --backend torch --peer timm"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="WHAT", required=True, dest="what")
    step = actions.add_parser("step", help="images/s, GFLOP/s, share of the matrix ceiling; against peers, a ratio")
    step.add_argument("--config", default="cifar", help="cifar, or one of the paper's models: S/16, B/16, ... (cifar)")
    step.add_argument("--backend", default="torch,jax", help="one or several, with commas (torch,jax)")
    step.add_argument("--peer", action="append", default=[], help="timm, timm-compile, lucidrains or official-flax")
    step.add_argument("--peer-path", type=Path, help="the clone of a peer that is no package")
    step.add_argument(
        "--versus", action="append", default=[], metavar="key=value", help="the same with another setting, as a ratio"
    )
    step.add_argument(
        "--replicas", type=int, default=1, metavar="N", help="N trials as one program, against N trials one by one"
    )
    limit = actions.add_parser("limit", help="the machine's matrix and memory ceilings")
    limit.add_argument("--store", type=Path, help="keep the ceiling in this results directory, for its reports")
    limit.add_argument("--backend", default="torch,jax", help="one or several, with commas (torch,jax)")
    grid = actions.add_parser("grid", help="where the wall time of an ablation goes, trained in a store of its own")
    add_store(grid)
    add_ablation(grid)
    grid.add_argument("--jobs", type=int, default=1, help="trials at a time (1)")
    grid.add_argument(
        "--compile-cache", type=Path, help="folder of compiled programs, kept from one process to the next"
    )
    for action in (step, limit, grid):
        action.add_argument("--json", action="store_true", help="for scripts")
        action.add_argument("--out", type=Path, metavar="JSON", help="keep it in a file too")
    add_overrides(grid)
    for action in (step, limit):
        action.add_argument("--precision", default="float32", help="float64, float32, tf32, bfloat16 (float32)")
        action.add_argument("--rounds", type=int, default=5, help="in each of which every side has its turn (5)")
        add_overrides(action)


def command(arguments: argparse.Namespace) -> int:
    return {"step": _step, "limit": _limit, "grid": _grid}[arguments.what](arguments)


def _step(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from analysis.terminal import bench_lines
    from experiments.bench import config, step

    names, rounds = _backends(arguments.backend), _rounds(arguments.rounds)
    trial = config.trial(arguments.config, _overrides(arguments))
    others = {one: config.trial(arguments.config, [*_overrides(arguments), *one.split()]) for one in arguments.versus}
    if arguments.replicas < 1:
        raise MixlabError(f"command line: --replicas: {arguments.replicas} is too small; at least 1")
    compared = step.sides(trial, names, arguments.peer, arguments.peer_path, others, arguments.replicas)
    with Console(stderr=True).status("begins") as status:
        measurements = step.measure(compared, rounds, status.update)
    return _show(arguments, measurements, bench_lines.step_lines(arguments.config, measurements))


def _limit(arguments: argparse.Namespace) -> int:
    import dataclasses

    from analysis.terminal import bench_lines
    from experiments.bench import config, limit
    from experiments.results.store import Store

    trial, rounds = config.trial("cifar", _overrides(arguments)), _rounds(arguments.rounds)
    trials = [dataclasses.replace(trial, backend=name) for name in _backends(arguments.backend)]
    limits = [limit.limit(one, rounds) for one in trials]
    if arguments.store:
        for one in limits:
            one.keep(Store(arguments.store))
    return _show(arguments, limits, bench_lines.limit_lines(limits))


def _grid(arguments: argparse.Namespace) -> int:
    from analysis.terminal import bench_lines
    from experiments.bench import grid

    if arguments.jobs < 1:
        raise MixlabError(f"command line: --jobs: expected at least 1, got {arguments.jobs}")
    store, ablation, trials = load(arguments, trains=True)
    times = grid.measure(trials, data_cache(ablation, store), arguments.jobs, arguments.compile_cache)
    return _show(arguments, [times], bench_lines.grid_lines(ablation.name, times))


def _show(arguments: argparse.Namespace, results: Sequence[Any], lines: Sequence[str]) -> int:
    """Print the results as lines or as JSON, and keep them in the file of --out."""
    import json

    from analysis.terminal import bench_lines
    from experiments.files import write_json

    if arguments.out:
        write_json(arguments.out, bench_lines.as_json(arguments.what, results))
    if arguments.json:
        print(json.dumps(bench_lines.as_json(arguments.what, results), allow_nan=False))
    else:
        print("\n".join([bench_lines.machine_line(), *lines]))
    return 0


def _overrides(arguments: argparse.Namespace) -> list[str]:
    return [f"train.precision={arguments.precision}", *arguments.overrides]


def _backends(text: str) -> list[str]:
    import backends

    names = text.split(",")
    for name in names:
        backends.check(name)
        backends.check_installed(name)
    return names


def _rounds(number: int) -> int:
    if number < 1:
        raise MixlabError(f"command line: --rounds: expected at least 1, got {number}")
    return number
