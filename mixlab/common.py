"""Parts that several commands share: exit codes, arguments, loading an ablation and its store, the table."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.errors import MixlabError, choices, counted, show_chain

if TYPE_CHECKING:
    from experiments.design.ablation import Ablation, GridTrial
    from experiments.results.store import Store
    from experiments.results.unsealed import Contents
    from experiments.weights.weight_files import Weights

# Exit codes: a mistake of the user's; a trial that failed; stopped by Ctrl-C.
USER_ERROR, TRIAL_FAILED, STOPPED = 2, 1, 130

COMMAND_LINE = "command line"  # where a mistake lies
SHORTEST_ID = 4  # digits that name a trial in a command which cannot be taken back
WEIGHTS = (
    "a file of weights (.npz, .safetensors, .msgpack, .pth, .ckpt, .bin, ...) in a format that "
    "experiments/weights/README.md lists"
)


# What arrays may not tell of a model: how it is said, and what it is.
TOLD: dict[str, tuple[Callable[[str], Any], str, str]] = {
    "num_heads": (int, "N", "heads of attention"),
    "image_size": (int, "N", "pixels a side of the images"),
    "activation": (str, "WORD", "gelu, gelu_tanh or relu"),
    "token_mixers": (lambda text: tuple(text.split(",")), "WORDS", "of a MetaFormer, of all stages or one a stage"),
}


def add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", type=Path, default=Path("runs"), help="the results directory (default: runs)")


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose one model of a file that holds several, and say what its arrays do not tell."""
    parser.add_argument("--ema", action="store_true", help="the average of the weights that lies beside them in FILE")
    parser.add_argument("--group", metavar="NAME", help="of several models in FILE, the one below this name")
    for option, (read, metavar, what) in TOLD.items():
        name = f"--{option.replace('_', '-')}"
        parser.add_argument(name, type=read, metavar=metavar, help=f"{what}, where the arrays in FILE do not tell it")


def read_weights(path: Path, arguments: argparse.Namespace) -> "Weights":
    """The model of a file that the options of `add_choice` mean."""
    from experiments.weights import weight_files

    told = {name: getattr(arguments, name) for name in TOLD if getattr(arguments, name) is not None}
    return weight_files.read(path, arguments.ema, arguments.group, told)


def add_ablation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ablation", type=Path, help="the ablation's YAML file")


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add the overrides, which are the last of the positional arguments."""
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="fields to set, as key=value; a list of values makes an axis: seed=[0,1,2]",
    )


def expand_paths(arguments: argparse.Namespace) -> None:
    """Expand `~` and variables in all paths: a shell leaves those of --store=~/runs and '$SCRATCH' as they are."""
    from experiments.spec.expand import expand

    for name, value in vars(arguments).items():
        if isinstance(value, Path):
            setattr(arguments, name, Path(expand(str(value), f"{COMMAND_LINE}: {name}")))


@contextlib.contextmanager
def noting_a_look() -> Iterator[None]:
    """Where a look at test numbers cannot be noted in the store, say so and go on."""
    from experiments.files import StoreError

    try:
        yield
    except StoreError as error:
        show_chain(error)
        told = "test numbers were shown and this is not noted, so trials that join later will not be counted"
        print(f"mixlab: {told}: {error}", file=sys.stderr)


def load(
    arguments: argparse.Namespace, trains: bool = False, reports: bool = False
) -> "tuple[Store, Ablation, list[GridTrial]]":
    """Load the store, the ablation and its trials, as --store, the ablation's file and the overrides ask for them.

    Where fields are tuned, the trials are those that are known by now; see tune.known.

    Args: trains: whether this command goes on to train; then it decodes data of any size that fits into memory.
          reports: whether it tells of what was trained; then data that has been damaged since is what it was.
    """
    from experiments.data import Purpose
    from experiments.design import ablation as ablations
    from experiments.design import tune
    from experiments.results.store import Store

    store = Store(arguments.store)
    store.check_folder()
    ablation = ablations.load_ablation(arguments.ablation, arguments.overrides)
    purpose = Purpose.TRAINING if trains else Purpose.REPORTING if reports else Purpose.PLANNING
    return store, ablation, tune.trials(ablation, data_cache(ablation, store), store, purpose)


def find(word: str, overrides: list[str], arguments: argparse.Namespace) -> "tuple[Store, Ablation, list[GridTrial]]":
    """The store, an ablation and its trials: of a YAML file, of a resolved one, or as it was last run with the store.

    Args:   word: the file or the name.    overrides: of a file any, of a name those of its report alone.
            arguments: with --store.
    Raises: MixlabError: there is no such ablation; the file or an override has a mistake.
    """
    from experiments.design import archive, overridden, tune
    from experiments.results.store import Store
    from experiments.spec.expand import expand

    where = f"{COMMAND_LINE}: ablation"
    if word.endswith((".yaml", ".yml")):
        asked = argparse.Namespace(store=arguments.store, ablation=Path(expand(word, where)), overrides=overrides)
        return load(asked, reports=True)
    if of_trials := [given for given in overrides if given not in overridden.of_report(overrides)]:
        raise MixlabError(
            f"command line: {of_trials[0]!r}: overrides need a YAML file, not the name of an ablation, but for report.*"
        )
    store, is_file = Store(arguments.store), word.endswith(".json")
    ablation, trials = archive.read(Path(expand(word, where))) if is_file else archive.recall(store, word)
    trials = tune.known(ablation, trials, store) if is_file else trials
    if not overrides:
        return store, ablation, trials
    laid_out = archive.laid_out(ablation, overrides)
    return store, laid_out, archive.as_laid_out(laid_out, trials)


def load_or_recall(arguments: argparse.Namespace) -> "tuple[Store, Ablation, list[GridTrial]]":
    """As `find`; but a word that is neither a name of the store nor a resolved ablation is the path of a YAML file."""
    from experiments.results.store import Store

    word = str(arguments.ablation)
    if word.endswith(".json") or word in Store(arguments.store).ablations():
        return find(word, arguments.overrides, arguments)
    return load(arguments)


def note_unsealed(store: "Store", name: str, contents: "Contents") -> None:
    """Note that test numbers of an ablation are shown; where that cannot be noted, say so. Args: contents: see note."""
    from experiments.results import unsealed

    with noting_a_look():
        unsealed.note(store, name, contents)


def waiting_lines(ablation: "Ablation", trials: "list[GridTrial]") -> list[str]:
    """A line on the trials of the table that are not known, since what is tuned is not chosen."""
    from experiments.design import tune

    number = tune.num_waiting(ablation, trials) if ablation.tune else 0
    told = f"and {counted(number, 'trial')} of the table, whose values are chosen when the others have ended"
    return [told] if number else []


def store_option(store: "Store") -> str:
    """The option --store for a command that is suggested, quoted for a shell; empty for the default store."""
    from experiments.spec.expand import as_typed

    return "" if str(store.root) == "runs" else f" --store {as_typed(store.root)}"


def find_trials(store: "Store", what: str) -> list[str]:
    """The ids of an ablation's trials, those of earlier submissions too, or of the one whose id starts with `what`.

    Raises: MixlabError: neither is there.
    """
    from slurm import ledger

    names = store.ablations()
    if what in names:
        labels = store.ablation_labels(what)
        return [*labels, *(one.trial.id for one in ledger.earlier(store, what, labels))]
    sent = (key for array in ledger.all_arrays(store) for pack in array.packs for key in pack)
    ids = dict.fromkeys((*(key for name in names for key in store.ablation_labels(name)), *sent))
    matches = [key for key in ids if len(what) >= SHORTEST_ID and key.startswith(what)]
    if len(matches) != 1:
        if len(what) < SHORTEST_ID:
            why = f"a trial is named by at least {SHORTEST_ID} digits of its id"
        else:
            why = f"{len(matches)} trial ids start with it" if matches else "no trial id starts with it"
        raise MixlabError(
            f"store: {what!r} is not an ablation of {store.root}, and {why}; {choices(what, (*names, *matches))}"
        )
    return matches


def data_cache(ablation: "Ablation", store: "Store") -> Path:
    """The folder of decoded images."""
    return Path(ablation.base.get("run.data_cache") or store.data)


def data_notes(ablation: "Ablation", trials: "list[GridTrial]", store: "Store") -> list[str]:
    """Notes on the data of the trials, a line each."""
    from experiments import data

    return data.of_trials((planned.trial for planned in trials), data_cache(ablation, store))
