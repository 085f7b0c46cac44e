"""Places of a data set's files in a source: in its folder, or in folders that downloads put around them."""

from collections.abc import Callable

from backends.errors import MixlabError, counted
from experiments.data.tree import Tree
from experiments.data.words import listed, splits_in
from experiments.spec.config import DataConfig

DEEPEST = 2  # folders around the files, as in MNIST/raw


def holding(tree: Tree, fits: Callable[[Tree], bool]) -> list[Tree]:
    """The folders that fit, of those that are not too deep."""
    return [folder for below, folder in tree.walk() if below.count("/") <= DEEPEST and fits(folder)]


def only_one(tree: Tree, fits: Callable[[Tree], bool], config: DataConfig, where: str) -> Tree:
    """The folder that fits.

    Raises: MixlabError: several do.
    """
    folders = holding(tree, fits)
    if len(folders) > 1:
        names = listed([str(folder.path) for folder in folders], 3)
        raise MixlabError(f"{where}: data.source: {config.source!r} holds several data sets: {names}; name one of them")
    return folders[0]


def left_out(tree: Tree, folder: Tree, used: set[str]) -> list[str]:
    """A note on the files that a reader does not use: in the folder of its files, and beside it in the source."""
    beside = [name for name in folder.files if name not in used]
    if folder is not tree:
        beside += [name for below, one in tree.walk() if one is not folder for name in (below + f for f in one.files)]
    return [f"{counted(len(beside), 'other file')} ignored: {listed(beside)}"] if beside else []


def split_of(path: str, where: str) -> str | None:
    """The split whose word stands in a file's name, else in that of the nearest folder; None: there is none.

    Raises: MixlabError: words of several splits stand there.
    """
    for name in reversed(path.split("/")):
        words = splits_in(name)
        if len(words) > 1:
            raise MixlabError(
                f"{where}: the name {name} is of several splits: {' and '.join(sorted(words))}; rename it"
            )
        if words:
            return words.pop()
    return None
