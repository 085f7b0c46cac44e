"""A folder of images in one folder for each class. The first level of folders decides what they are:

- If the name of every folder is a split word (train, training, trainset; val, valid, validation, dev; test, testing,
  testset, eval; in any case), they are splits, and the folders in them are classes.
- If no name is a split word, they are classes; two names that hold one (train_images, test_images) are a question.
- If some are, depth decides: one split word among folders that all hold images is a class like the others; two or more
  among folders that all hold folders are splits like the others. All else is a question, and data.layout answers it.

Images in deeper folders belong to the class above; where these are named by two splits or more, it is a question. A
split without class folders is unlabelled, unless a table of file names lies in it (tables.py) or Tiny ImageNet's
*_annotations.txt. A folder of a split that is alone and called "images" is no class. Links are followed; files that are
no images, hidden names and empty folders are counted and named.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from backends.errors import MixlabError, counted
from experiments.data import tables
from experiments.data.raw import Found, RawSplit
from experiments.data.tree import Tree
from experiments.data.words import canonical, in_order, is_image, listed, splits_in
from experiments.spec.config import DataConfig

KIND = "image files in one folder for each class"
INNER = {"images"}  # Tiny ImageNet's folder between a split, or a class, and its images


def finds(tree: Tree) -> bool:
    """Tell whether there are class folders: two that hold images, at the first level or in a split's folder."""
    first = _with_images(tree)
    if any(canonical(name) and len(_class_folders(folder)) > 1 for name, folder in first.items()):
        return True
    return len(first) > 1 and not all(canonical(name) for name in first)


def read(tree: Tree, config: DataConfig, scratch: Path, where: str) -> Found:
    """Read class folders, as raw.py asks of a reader."""
    prefix = f"{where}: data.source: {config.source!r}"
    first = _with_images(tree)
    both = [] if config.layout else tables.name_images(tree, prefix)
    if both:
        raise MixlabError(
            f"{prefix} has class folders ({listed(list(first), 3)}) and a table of images ({listed(both, 2)}); to read "
            f"the folders, set data.layout to classes or splits; to read the table, move it and its images to a folder"
        )
    if _are_splits(first, config, prefix):
        return _read_splits(tree, first, config, where)
    if not config.layout:
        _refuse_splits_inside(first, prefix)
    if len(first) < 2:
        raise MixlabError(f"{prefix} has {counted(len(first), 'class folder')}; expected two or more{hint(tree)}")
    split = _split("train", first)
    notes = [*_beside(tree, first, "class folders"), *_in_classes(tree, first)]
    return Found(KIND, {"train": lambda: split}, tuple(in_order(list(first))), tuple(notes))


def _are_splits(first: Mapping[str, Tree], config: DataConfig, where: str) -> bool:
    """Tell whether the folders of the first level are splits; else they are classes.

    Raises: MixlabError: they can be both.
    """
    if config.layout:
        return config.layout == "splits"
    words = [name for name in first if canonical(name)]
    others = [name for name in first if not canonical(name)]
    if not others:
        return True
    if not words:
        words = [name for name in first if splits_in(name)]
        if len(words) < 2:
            return False
        others = [name for name in first if name not in words]
        raise _question(first, words, others, where)
    flat = [name for name, folder in first.items() if any(is_image(file) for file in folder.files)]
    if len(words) == 1 and len(flat) == len(first):
        return False
    if len(words) > 1 and not flat:
        return True
    raise _question(first, words, others, where)


def _refuse_splits_inside(classes: Mapping[str, Tree], where: str) -> None:
    """Refuse splits inside class folders. Raises: MixlabError: splits stand below classes, or below folds."""
    for name, folder in classes.items():
        inside = [inner for inner in _with_images(folder) if canonical(inner)]
        if len(set(map(canonical, inside))) > 1:
            raise MixlabError(
                f"{where}: {name} holds the splits {listed(inside)}; put splits above classes, or name {folder.path}; "
                f"to take all images below a folder for one class, set data.layout: classes"
            )


def _question(first: Mapping[str, Tree], words: list[str], others: list[str], where: str) -> MixlabError:
    further = f"; {listed(others, 3)} would be further ones" if others else ""
    return MixlabError(
        f"{where}: its folders can be classes ({listed(list(first), 4)}) or splits ({listed(words, 3)}, with classes "
        f"inside{further}); say which with data.layout: classes or splits"
    )


def _read_splits(tree: Tree, first: Mapping[str, Tree], config: DataConfig, where: str) -> Found:
    prefix = f"{where}: data.source: {config.source!r}"
    names = {folder: canonical(folder) or folder for folder in first}
    for name in names.values():
        same = [other for other in names if names[other] == name]
        if len(same) > 1:
            raise MixlabError(f"{prefix}: the folders {' and '.join(same)} are both the split {name!r}; rename one")
    splits: dict[str, Callable[[], RawSplit]] = {}
    unlabelled, notes, classes = [], _beside(tree, first, "splits"), set()
    for folder_name, name in names.items():
        folder = first[folder_name]
        if inner := _class_folders(folder):
            splits[name] = partial(_split, name, inner)
            classes |= set(inner)
            notes += [*_beside(folder, inner, "class folders"), *_in_classes(folder, inner)]
        elif labelled := _from_table(name, folder, config, where):
            splits[name] = labelled
        else:
            unlabelled.append(name)
    if not classes:
        raise MixlabError(
            f"{prefix}: expected class folders in a split, but none of {listed(list(first))} has any{hint(tree)}"
        )
    return Found(KIND, splits, tuple(in_order(list(classes))), tuple(notes), tuple(unlabelled))


def _from_table(name: str, folder: Tree, config: DataConfig, where: str) -> Callable[[], RawSplit] | None:
    """A function that reads a split whose images lie flat beside a table of their classes; None: there is no table."""
    annotations = [file for file in folder.files if file.endswith("_annotations.txt")]
    if len(annotations) == 1:
        return partial(_annotated, name, folder, annotations[0], f"{where}: data.source: {config.source!r}")
    if tables.in_folder(folder):
        return partial(tables.read_split, name, folder, config, where)
    return None


def _annotated(name: str, folder: Tree, annotations: str, where: str) -> RawSplit:
    """Tiny ImageNet's validation split: lines of file, class and a box, separated by tabs."""
    lines = (folder.path / annotations).read_text("utf-8").splitlines()
    rows = [line.split("\t")[:2] for line in lines if line.strip()]
    inner = next(iter(folder.folders.values()), folder)
    values = {row[0]: row[-1] for row in rows}
    files = [file for file in inner.files if is_image(file)]
    if odd := set(files) ^ set(values):
        raise MixlabError(
            f"{where}: {len(odd):,} images of split {name!r} have no line in {annotations}, or its lines have "
            f"no image: {listed(sorted(odd), 3)}; correct the file"
        )
    paths = [str(inner.path / file) for file in files]
    return RawSplit(name, [values[file] for file in files], lambda: iter(paths))


def _split(name: str, classes: Mapping[str, Tree]) -> RawSplit:
    """The images of all classes in the order of their paths."""
    files = []
    for label, folder in classes.items():
        files += [(f"{label}/{file}", label) for file, _ in folder.all_files() if is_image(file)]
    files.sort()
    parents = {label: str(folder.path.parent) for label, folder in classes.items()}
    return RawSplit(name, [label for _, label in files], lambda: (f"{parents[label]}/{file}" for file, label in files))


def _with_images(tree: Tree) -> dict[str, Tree]:
    """The folders that hold images, at any depth."""
    return {name: folder for name, folder in tree.folders.items() if _holds_images(folder)}


def _holds_images(tree: Tree) -> bool:
    return any(is_image(name) for name in tree.files) or any(_holds_images(inner) for inner in tree.folders.values())


def _class_folders(split: Tree) -> dict[str, Tree]:
    with_images = _with_images(split)
    return {} if set(with_images) <= INNER else with_images


def _beside(tree: Tree, folders: Mapping[str, Tree], what: str) -> list[str]:
    """A note on what lies beside the folders that count and holds no example."""
    without = {name: folder for name, folder in tree.folders.items() if name not in folders and folder.holds}
    odd = [*tree.files, *(f"{name}/ with {_types(folder)}" for name, folder in without.items())]
    return [f"{counted(len(odd), 'name')} beside the {what} of {tree.path.name} ignored: {listed(odd)}"] if odd else []


def _in_classes(tree: Tree, classes: Mapping[str, Tree]) -> Iterator[str]:
    """Images that lie deeper than a class folder, and files in class folders that are no images, by type."""
    deeper = {
        f"{name}/{inner}": sum(is_image(file) for file, _ in folder.all_files())
        for name, above in classes.items()
        for inner, folder in _with_images(above).items()
        if inner not in INNER
    }
    if deeper:
        yield (
            f"images in folders below the class folders of {tree.path.name} ({listed(list(deeper), 3)}) belong to the "
            f"class above: {sum(deeper.values()):,} of them"
        )
    odd = sum(not is_image(name) for folder in classes.values() for name, _ in folder.all_files())
    if odd:
        kinds = _types(*classes.values())
        yield f"{counted(odd, 'file')} of other types in the class folders of {tree.path.name} ignored: {kinds}"


def _types(*folders: Tree) -> str:
    """The suffixes of the files that are no images, with their number, the most frequent first."""
    names = (name for folder in folders for name, _ in folder.all_files() if not is_image(name))
    types = Counter(Path(name).suffix or "no suffix" for name in names)
    return listed([f"{suffix} ({number:,})" for suffix, number in types.most_common()], 10)


def hint(tree: Tree) -> str:
    """The end of an error: what may be meant by a folder of images in which no class folders were found."""
    first = _with_images(tree)
    if len(first) > 1 and all(map(canonical, first)):
        alone = [f"{name}/{inner}" for name, folder in first.items() for inner in _with_images(folder)]
        if not alone:
            return "; to take these folders for classes, set data.layout: classes"
        return f"; the splits hold one folder each ({listed(alone, 3)}): move what is in it one level up"
    inner = [folder.path for below, folder in tree.walk() if below and finds(folder)]
    return f"; did you mean data.source={inner[0]}?" if inner else ""
