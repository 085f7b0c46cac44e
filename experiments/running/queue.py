"""Trials that wait for a worker, and which of them one takes next."""

from collections.abc import Callable, Hashable, Sequence

from experiments.design.ablation import GridTrial
from experiments.design.stages import is_halted
from experiments.results import checkpoint
from experiments.results.record import is_final
from experiments.results.store import Store
from experiments.running import replicas


class Queue:
    """Trials by backend and structure, so that a worker goes on with what it has imported and compiled."""

    def __init__(self, trials: Sequence[GridTrial], store: Store, resume_on: str | None = None):
        """Args: resume_on: the backend on which trials that have a checkpoint go on; None: on their own."""
        self.store = store
        self.backends = {
            planned.trial.id: resume_on if resume_on and store.can_go_on(planned.trial.id) else planned.trial.backend
            for planned in trials
        }
        self.waiting = sorted(
            trials, key=lambda planned: (self.backends[planned.trial.id], repr(planned.trial.model.structure()))
        )
        self.most: dict[Hashable, int] = {}  # kind -> how many fit into one program, where fewer than are asked for
        numbers: dict[Hashable, int] = {}
        self.kinds = {  # equal for trials that can be replicas
            planned.trial.id: numbers.setdefault(
                (self.backends[planned.trial.id], replicas.common(planned.trial), planned.until), len(numbers)
            )
            for planned in trials
            if replicas.wanted(planned.trial) > 1
        }

    def __len__(self) -> int:
        return len(self.waiting)

    def choose_backend(self, own: str | None, at_work: Sequence[str | None]) -> str:
        """A worker's own backend while trials of it wait, else the one that most trials a worker wait for."""
        waiting = [self.backends[planned.trial.id] for planned in self.waiting]
        if own in waiting:
            return str(own)
        return max(dict.fromkeys(waiting), key=lambda name: waiting.count(name) / (1 + at_work.count(name)))

    def take(
        self, backend: str, idle: int, is_wanted: Callable[[str], bool]
    ) -> tuple[list[GridTrial], list[GridTrial]]:
        """Take the first trial of a backend, and those that can train with it.

        Args:    idle: workers that have nothing to do, this one counted: each gets its share of what waits.
        Returns: trials that go through one program, and trials that nobody wants any more.
        """
        first = next(i for i, planned in enumerate(self.waiting) if self.backends[planned.trial.id] == backend)
        several = min(self._limit(self.waiting[first]), -(-len(self.waiting) // idle))
        places = self._alike(first, several) if several > 1 else [first]
        taken = [self.waiting.pop(place) for place in reversed(places)][::-1]
        wanted = [planned for planned in taken if is_wanted(planned.trial.id)]
        return wanted, [planned for planned in taken if planned not in wanted]

    def _alike(self, first: int, number: int) -> list[int]:
        """Places of a waiting trial and of those, up to a number, that can train with it: they begin at its step."""
        kind, step, places = self.kinds[self.waiting[first].trial.id], self._step(self.waiting[first]), [first]
        for place in range(first + 1, len(self.waiting)):
            planned = self.waiting[place]
            if len(places) < number and self.kinds.get(planned.trial.id) == kind and self._step(planned) == step:
                places.append(place)
        return places

    def put_back(self, trials: Sequence[GridTrial], most: int) -> None:
        """Trials that a worker has given back, because at most so many of their kind go through one program here."""
        self.waiting = [*trials, *self.waiting]
        for planned in trials:
            self.most[self.kinds[planned.trial.id]] = most

    def _limit(self, planned: GridTrial) -> int:
        if (kind := self.kinds.get(planned.trial.id)) is None:
            return 1
        return min(replicas.wanted(planned.trial), self.most.get(kind, replicas.wanted(planned.trial)))

    def _step(self, planned: GridTrial) -> int:
        return checkpoint.newest_step(self.store.checkpoint(planned.trial.id))


def pending(trials: Sequence[GridTrial], store: Store, warn: Callable[[str], None]) -> list[GridTrial]:
    """The trials that are not done, did not diverge, and have not come as far as they are trained for now.

    A corrupt record is set aside and its trial runs again.
    """
    left, there = [], set(store.trial_ids())
    for planned in {planned.trial.id: planned for planned in trials}.values():  # two settings may come to one trial
        if planned.trial.id not in there:
            left.append(planned)
            continue
        record, sentence = store.record_or_set_aside(planned.trial.id)
        if sentence:
            warn(sentence)
        if (record is None or not is_final(record)) and not is_halted(planned, store):
            left.append(planned)
    return left
