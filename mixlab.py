"""Mixlab's command line: plan, run, status, report, show, weights, evaluate."""

import argparse
import importlib
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backends.errors import MixlabError

if TYPE_CHECKING:
    from experiments.ablation import Ablation, GridTrial
    from experiments.store import Store

# Exit codes: a mistake of the user's; a trial that failed; stopped by Ctrl-C.
USER_ERROR, TRIAL_FAILED, STOPPED = 2, 1, 130

COMMANDS = {
    "plan": "List an ablation's trials: id, settings, parameters, GFLOP, memory, and whether each is done.",
    "run": "Train the trials that are not done, here, and print the table.",
    "status": "Say what is done, running, failed (and why) and missing.",
    "report": "Print an ablation's table: mean, standard deviation and n over seeds.",
    "show": "Print one trial: its spec, environment, layers, result and curve.",
    "parity": "Prove that two backends, precisions or devices train the same model, or name where they part.",
    "weights": "Say what a file of weights holds, or convert it to another format.",
    "evaluate": "Print the accuracy of a file of weights on the test examples of a data set.",
}
EXAMPLES = {
    "plan": "mixlab plan experiments/ablations/tying.yaml data.source=path/to/cifar10",
    "run": "mixlab run experiments/ablations/tying.yaml train.steps=200 'seed=[0,1]' --jobs 2",
    "status": "mixlab status tying",
    "report": "mixlab report experiments/ablations/tying.yaml --format markdown",
    "show": "mixlab show 3f9c",
    "parity": "mixlab parity experiments/bases/cifar10.yaml --pair torch:float64,jax:float64",
    "weights": "mixlab weights convert Mixer-B_16.npz mixer_b16.safetensors --to timm",
    "evaluate": "mixlab evaluate --weights Mixer-B_16.npz path/to/imagenet --backend jax",
}
WEIGHTS = "a .npz, .safetensors or .pth file: official, timm, lucidrains, lavish619, einops or mixlab"
OVERRIDES = "fields to set, as key=value; a list of values makes an axis: seed=[0,1,2]"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    try:
        arguments = _parse(argv)
        return int(arguments.command(arguments))
    except MixlabError as error:
        print(f"mixlab: {error}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        return 0
    except KeyboardInterrupt:
        print("mixlab: stopped", file=sys.stderr)
        return STOPPED
    except MemoryError as error:
        print(f"mixlab: out of memory ({error}); choose smaller sizes, or a machine with more", file=sys.stderr)
        return USER_ERROR
    except OSError as error:
        print(f"mixlab: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return USER_ERROR


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Overrides may stand among the options, where argparse alone does not look for them."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if unknown := [word for word in rest if word.startswith("-") or not hasattr(arguments, "overrides")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if hasattr(arguments, "overrides"):
        arguments.overrides += rest
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mixlab", description="The ablation bench for MLP-Mixer.")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    commands = {"plan": _plan, "run": _run, "status": _status, "report": _report, "show": _show}
    commands |= {"weights": _weights, "evaluate": _evaluate, "parity": _parity}
    for name, command in commands.items():
        sub = subparsers.add_parser(
            name,
            help=COMMANDS[name],
            description=COMMANDS[name],
            epilog=f"Example: {EXAMPLES[name]}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=command)
        if name == "weights":
            _add_weights(sub)
            continue
        sub.add_argument("--store", type=Path, default=Path("runs"), help="the results directory (default: runs)")
        if name in ("plan", "run", "report"):
            sub.add_argument("ablation", type=Path, help="the ablation's YAML file")
        if name == "parity":
            _add_parity(sub)
        if name == "run":
            sub.add_argument("--only", metavar="ID", help="just the trial whose id begins with ID")
            sub.add_argument("--resume-on", metavar="BACKEND", help="go on with it where a trial has a checkpoint")
            sub.add_argument("--jobs", type=int, default=1, help="trials at a time, on equal shares of the cores (1)")
            sub.add_argument("--dry-run", action="store_true", help="list what would run, and run nothing")
        if name == "status":
            sub.add_argument(
                "ablation",
                nargs="?",
                help="its name, as it was last run with this store, or its YAML file (default: all)",
            )
        if name in ("plan", "run", "report", "status", "parity"):
            sub.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=OVERRIDES)
        if name == "report":
            formats = ("text", "csv", "markdown", "json")
            sub.add_argument("--format", choices=formats, default="text", help="(default: text)")
        if name == "show":
            sub.add_argument("id", help="the trial's id, or the beginning of it")
        if name == "evaluate":
            _add_evaluate(sub)
    return parser


def _add_parity(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("ablation", type=Path, help="the YAML file of a base, or of an ablation: each distinct model")
    sub.add_argument("--pair", default="torch,jax", help="two of backend[:precision[:device]] (torch,jax)")
    sub.add_argument("--steps", type=int, default=200, help="of the trajectory (200)")
    sub.add_argument("--python", action="append", default=[], metavar="BACKEND=PATH", help="another interpreter")
    sub.add_argument("--json", action="store_true", help="for scripts")
    sub.add_argument("--plot", type=Path, metavar="PNG", help="a picture of the divergence over depth and steps")


def _add_weights(sub: argparse.ArgumentParser) -> None:
    actions = sub.add_subparsers(metavar="ACTION", required=True, dest="action")
    inspect = actions.add_parser("inspect", help="print the format, the model and how many parameters it has")
    convert = actions.add_parser("convert", help="write the same numbers in another format")
    for action in (inspect, convert):
        action.add_argument("file", type=Path, metavar="FILE", help=WEIGHTS)
    convert.add_argument("out", type=Path, metavar="OUT", help="the .npz or .safetensors file to write")
    convert.add_argument(
        "--to",
        choices=("official", "timm", "mixlab"),
        help="(default: official in .npz, mixlab in .safetensors)",
    )


def _add_evaluate(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--weights", type=Path, required=True, metavar="FILE", help=WEIGHTS)
    sub.add_argument(
        "overrides", nargs="*", default=[], metavar="DATA", help="the source, and fields of it as data.<field>=value"
    )
    sub.add_argument("--backend", default="torch", help="torch, jax or an installed one (default: torch)")
    sub.add_argument("--precision", choices=("float32", "float64"), default="float32", help="(default: float32)")
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")


def _load(arguments: argparse.Namespace) -> "tuple[Store, Ablation, list[GridTrial]]":
    from experiments import ablation as ablations
    from experiments.store import Store

    store = Store(arguments.store)
    store.check_folder()
    ablation = ablations.load_ablation(arguments.ablation, arguments.overrides)
    return store, ablation, ablations.trials(ablation, _cache(ablation, store))


def _cache(ablation: "Ablation", store: "Store") -> Path:
    return Path(ablation.base.get("run.data_cache") or store.data)


def _plan(arguments: argparse.Namespace) -> int:
    from analysis.listing import plan_lines

    store, _, trials = _load(arguments)
    print("\n".join(plan_lines(trials, store)))
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    import backends
    from experiments import local, progress

    if arguments.jobs < 1:
        raise MixlabError(f"command line: --jobs: {arguments.jobs} is too small; at least 1")
    if arguments.resume_on is not None:
        backends.check(arguments.resume_on)
    store, ablation, trials = _load(arguments)
    chosen = trials if arguments.only is None else _only(trials, arguments.only)
    if arguments.dry_run:
        from analysis.listing import plan_lines

        left = [planned for planned in chosen if not local.is_ended(planned, store)]
        print("\n".join(plan_lines(left, store)) if left else f"nothing to run: {len(chosen)} of {len(chosen)} ended")
        return 0
    store.check_writable()
    console = Console(stderr=True)
    todo = local.pending(chosen, store, lambda note: console.print(note, markup=False, soft_wrap=True))
    store.write_ablation(ablation.name, ablation.text, {planned.trial.id: planned.label for planned in trials})
    # The table's imports take half a second, which is free while the workers import their frameworks.
    threading.Thread(target=importlib.import_module, args=("analysis.table",), daemon=True).start()
    with progress.reporter(console, len(todo)) as reporter:
        cache = _cache(ablation, store)
        run = local.LocalRun(todo, store, cache, arguments.jobs, reporter, arguments.resume_on)
        for backend in dict.fromkeys(run.backends.values()):
            backends.check_installed(backend)
        summary = run.run()
    if summary.left:
        done = sum((store.record(planned.trial.id) or {}).get("status") == "done" for planned in chosen)
        again = shlex.join(["mixlab", *sys.argv[1:]])
        print(f"mixlab: stopped with {done} of {len(chosen)} trials done; go on with: {again}", file=sys.stderr)
        return STOPPED
    print(_table(ablation, trials, store, "text"), end="")
    failed = [planned for planned in chosen if (store.record(planned.trial.id) or {}).get("status") == "failed"]
    return TRIAL_FAILED if failed or summary.failed else 0


def _only(trials: "list[GridTrial]", prefix: str) -> "list[GridTrial]":
    from backends.errors import choices

    found = [planned for planned in trials if planned.trial.id.startswith(prefix)]
    if not found or not prefix:
        ids = [planned.trial.id for planned in trials]
        raise MixlabError(f"command line: --only: no trial's id begins with {prefix!r}; {choices(prefix, ids)}")
    return found


def _table(ablation: "Ablation", trials: "list[GridTrial]", store: "Store", style: str) -> str:
    from analysis.frame import trials_frame
    from analysis.table import render

    return render(ablation, trials_frame(ablation, trials, store), style)


def _report(arguments: argparse.Namespace) -> int:
    store, ablation, trials = _load(arguments)
    print(_table(ablation, trials, store, arguments.format), end="")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from analysis.listing import overview_lines, status_lines
    from experiments.store import Store

    store = Store(arguments.store)
    if arguments.ablation is None:
        print("\n".join(overview_lines(store)))
        return 0
    if arguments.ablation.endswith((".yaml", ".yml")):
        arguments.ablation = Path(arguments.ablation)
        _, _, trials = _load(arguments)
        labels = {planned.trial.id: planned.label for planned in trials}
    elif arguments.overrides:
        raise MixlabError(f"command line: {arguments.overrides[0]!r}: overrides go with a YAML file, not with a name")
    else:
        labels = store.ablation_labels(arguments.ablation)
    print("\n".join(status_lines(labels, store)))
    return 0


def _parity(arguments: argparse.Namespace) -> int:
    import contextlib

    from rich.console import Console

    from analysis import parity_lines
    from analysis.parity_lines import Climbed
    from experiments.ablation import load_base
    from experiments.parity import pair
    from experiments.store import Store

    if arguments.steps < 2:
        raise MixlabError(f"command line: --steps: {arguments.steps} is too small; at least 2")
    sides = pair.read_pair(arguments.pair)
    pythons = pair.read_pythons(arguments.python, sides)
    if arguments.plot:
        parity_lines.check_plot(arguments.plot)
    store = Store(arguments.store)
    store.check_folder()
    ablation = load_base(arguments.ablation, arguments.overrides)
    cache = _cache(ablation, store)
    planned = pair.trials(ablation, arguments.steps, cache)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what is temporary is removed
    trials = [one.trial for one in planned]
    found: list[Climbed] = []
    console = Console(stderr=True)
    with (
        contextlib.closing(pair.ladders(trials, sides, arguments.steps, cache, pythons)) as ladders,
        console.status("both sides begin") as status,
    ):
        for one, ladder in zip(planned, ladders, strict=True):
            title = " ".join(filter(None, (ablation.name, one.label)))
            about, rungs = list(ladder.about()), []
            for rung in ladder.climb():
                status.update(f"{title}: {rung.name} compared, model {len(found) + 1} of {len(planned)}")
                rungs.append(rung)
            found.append(Climbed(title, sides, pair.conditions(one.trial), about, rungs))
            if not arguments.json:
                print("\n".join([*parity_lines.lines(found[-1]), ""]), flush=True)
    if arguments.json:
        print(json.dumps([parity_lines.as_json(climbed) for climbed in found], allow_nan=False))
    elif len(found) > 1:
        print(parity_lines.summary(found))
    if arguments.plot:
        parity_lines.plot(arguments.plot, found)
    return 0 if all(climbed.passed for climbed in found) else TRIAL_FAILED


def _show(arguments: argparse.Namespace) -> int:
    from analysis.listing import show_lines
    from experiments.store import Store

    print("\n".join(show_lines(arguments.id, Store(arguments.store))))
    return 0


def _weights(arguments: argparse.Namespace) -> int:
    from analysis.listing import weights_lines
    from experiments import weight_files

    weights = weight_files.read(arguments.file)
    if arguments.action == "inspect":
        print("\n".join(weights_lines(weights)))
        return 0
    if arguments.out.resolve() == arguments.file.resolve():
        raise MixlabError(f"command line: {arguments.out} is the file to read; name another one to write")
    target, differences = weight_files.write(arguments.out, weights, arguments.to)
    print(f"wrote {arguments.out} in the format {target}")
    if differences:
        print(f"note: the code of {target} computes otherwise: {'; '.join(differences)}")
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from analysis.listing import weights_lines
    from backends.contract import RunSpec
    from experiments import evaluation, weight_files
    from experiments.store import Store

    store = Store(arguments.store)
    store.check_folder()
    weights = weight_files.read(arguments.weights)
    config = evaluation.read_data(arguments.overrides, weights.model)
    run = RunSpec(arguments.device, arguments.precision, threads=len(os.sched_getaffinity(0)))
    found = evaluation.evaluate(weights, config, store.data, arguments.backend, run)
    print("\n".join(weights_lines(weights)))
    print(f"test        {found.num_examples:,} examples of {config.source}")
    print(f"accuracy    {100 * found.accuracy:.2f} %\nloss        {found.loss:.6f} (softmax)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
