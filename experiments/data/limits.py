"""How much of a source may be read and decoded now: no plan begins with an hour of work that nobody asked for."""

from enum import Enum

from backends.errors import MixlabError, counted
from experiments.data.builtin import BUILT_IN
from experiments.data.known import About
from experiments.data.tree import Tree
from experiments.machine import memory
from experiments.spec.config import DataConfig

GIB = 2**30
PLANNED_BYTES = GIB  # of files, and of decoded images: what planning reads and decodes by itself


class Purpose(Enum):
    """What a source is read for."""

    REPORTING = "reporting"  # as for planning; but what was read before may be damaged now
    PLANNING = "planning"  # what is small is decoded, however little memory there is
    TRAINING = "training"  # what fits into memory is
    PREPARING = "preparing"  # everything is


class NotPrepared(MixlabError):
    """A source that is not decoded yet, and that planning may not decode; `prepared_by` adds what to do.

    about: what it would decode to; None: that is not known.
    """

    def __init__(self, sentence: str, about: About | None = None):
        super().__init__(sentence)
        self.about = about

    def prepared_by(self, command: str) -> MixlabError:
        """The same mistake, with the command that prepares the source."""
        return MixlabError(f"{self}; prepare it: {command}")


def check_files(config: DataConfig, tree: Tree, purpose: Purpose, where: str) -> None:
    """Check the size of a source's files, by the listing alone.

    Raises: NotPrepared: there is more to read than planning reads.
    """
    sizes = [num_bytes for _, (num_bytes, _) in tree.all_files()]
    if purpose is Purpose.PLANNING and sum(sizes) > PLANNED_BYTES:
        held = f"holds {sum(sizes) / GIB:,.2f} GiB in {counted(len(sizes), 'file')}"
        raise NotPrepared(f"{where}: data.source: {config.source!r} {held}; {_most('reads')}")


def check_download(config: DataConfig, num_bytes: int | None, purpose: Purpose, where: str) -> None:
    """Check the size of a download.

    Args:   num_bytes: the size that the hub gives of a data set; None: it gives none.
    Raises: NotPrepared: it is more than planning downloads, or may be.
    """
    if purpose is not Purpose.PLANNING or (num_bytes is not None and num_bytes <= PLANNED_BYTES):
        return
    held = "does not say how large it is" if num_bytes is None else f"says that it takes {num_bytes / GIB:,.2f} GiB"
    raise NotPrepared(f"{where}: data.source: the hub has {config.source!r} and {held}; {_most('downloads')}")


def check_decoded(about: About, config: DataConfig, purpose: Purpose, where: str) -> None:
    """Check the size of the decoded images, by the heads of the files.

    Raises: NotPrepared: planning would decode more than it may.    MixlabError: they exceed the memory.
    """
    if purpose is Purpose.TRAINING:
        check_memory(about, config.source, where)
    if purpose is Purpose.PLANNING and decoded_bytes(about) > PLANNED_BYTES:
        num = about.num_train + about.num_test
        shape = f"{about.image_size} x {about.image_size} x {about.image_channels}"
        as_first = "" if config.image_size or config.source in BUILT_IN else ", if all are as wide as the first"
        smaller = " (fewer data.num_examples take less)" if config.source == "synthetic" else ""
        raise NotPrepared(
            f"{where}: data.source: {config.source!r} decodes to {decoded_bytes(about) / GIB:,.2f} GiB "
            f"({num:,} images of {shape} bytes{as_first}); {_most('decodes')}{smaller}",
            about,
        )


def _most(does: str) -> str:
    """The end of an error sentence: how much planning reads, downloads or decodes."""
    return f"planning {does} {PLANNED_BYTES / GIB:g} GiB at most"


def decoded_bytes(about: About) -> int:
    """Bytes that the decoded images of a source take, over the splits that are used."""
    return (about.num_train + about.num_test) * about.image_size**2 * about.image_channels


def check_memory(about: About, source: str, where: str) -> None:
    """Check that the decoded images fit into the memory.

    Raises: MixlabError: they exceed what is available now; gives both numbers.
    """
    num = about.num_train + about.num_test
    shape = f"{about.image_size} x {about.image_size} x {about.image_channels}"
    needed, available = decoded_bytes(about), memory.available_bytes()
    if needed > available:
        raise MixlabError(
            f"{where}: data.source: {source!r} decodes to {needed / GIB:.2f} GiB ({num} images of {shape} bytes) "
            f"and {available / GIB:.2f} GiB of memory are available; "
            f"set a smaller data.image_size{', fewer data.num_examples' if source == 'synthetic' else ''}, give fewer "
            f"--jobs, or take a machine with more"
        )
