"""Why a trial did not end: classes of failure, by which it is decided whether it is tried again."""

from dataclasses import dataclass

from backends.errors import BackendMissing, Diverged, MixlabError, show_chain
from experiments.data.pixels import DataLost
from experiments.files import FULL
from experiments.training.transfer import NoStart

NODE_LOST, OUT_OF_MEMORY = "node_lost", "out_of_memory"
CAUSES = {
    OUT_OF_MEMORY: "the device's or the machine's memory was full",
    "diverged": "the loss is not finite, and would not be the next time",
    "timed_out": "the job's time was over",
    "preempted": "the job gave way to another",
    NODE_LOST: "the node, or what runs jobs on it, went away",
    "import_error": "a framework is missing or does not load, for every other trial too",
    "data_missing": "the data cannot be read, or is not what it was",
    "start_missing": "the weights that it begins from are not there, or are others",
    "disk_full": "nothing can be written to the store",
    "killed": "the process was killed by a signal",
    "cancelled": "somebody cancelled it",
    "error": "the code raised an error",
}


# Causes that are not the trial's, where a process of its group has met them: those of its machine, or of all trials.
NOT_ITS_OWN = frozenset({NODE_LOST, "import_error", "data_missing", "disk_full"})


class DataMissing(MixlabError):
    """The data of a trial that was planned cannot be read, or has changed."""


class DoesNotFit(Exception):
    """A trial needs more memory than there is; its text is a sentence. Other trials of the run may fit."""


@dataclass(frozen=True)
class Failure:
    """One trial's failure, as it goes from a worker to its parent and into the record."""

    cause: str  # of CAUSES
    reason: str  # one sentence

    @property
    def outcome(self) -> dict[str, str]:
        """The part of a record."""
        return {"status": "failed", "cause": self.cause, "reason": self.reason}


class GroupLost(Exception):
    """A process of a trial on several devices has died, failed or hung; the last checkpoint is whole."""

    def __init__(self, lost: Failure):
        super().__init__(lost.reason)
        self.failure = lost


def failure(error: BaseException) -> Failure:
    """The class of an error and one line of it."""
    if isinstance(error, GroupLost):
        return error.failure
    show_chain(error)
    own = isinstance(error, (MixlabError, Diverged, DoesNotFit, NoStart))
    line = (str(error).splitlines() or [""])[0]
    return Failure(cause_of(error), line if own else f"{type(error).__name__}: {line}")


def cause_of(error: BaseException) -> str:
    """The class of an error. Frameworks say that memory is out by a name or a word, each by its own."""
    if isinstance(error, Diverged):
        return "diverged"
    if isinstance(error, (DataMissing, DataLost)):
        return "data_missing"
    if isinstance(error, NoStart):
        return "start_missing"
    if isinstance(error, (BackendMissing, ImportError)):
        return "import_error"
    if any(isinstance(one, OSError) and one.errno in FULL for one in (error, error.__cause__)):
        return "disk_full"
    if isinstance(error, DoesNotFit):
        return OUT_OF_MEMORY
    words = f"{type(error).__name__} {error}".lower()
    if isinstance(error, MemoryError) or any(word in words for word in ("out of memory", "outofmemory", "exhausted")):
        return OUT_OF_MEMORY
    return "error"
