"""The results directory: one folder a trial, no database, many writers.

    trials/<id>/        spec.json  env.json  metrics.jsonl  checkpoint.safetensors  record.json  heartbeat
                        previous-checkpoint.safetensors, for when the last one is damaged
                        predictions-<step>.safetensors.gz and, where run.keep is best, best-<step>.safetensors
                        weights.safetensors, filters.safetensors (first layers), predictions.safetensors.gz, when done
    ablations/<name>/   resolved.json  ablation.yaml and trials.txt (what it says, for people)
                        records.parquet (a cache)  jobs/  report/  unsealed/ (see unsealed.py)
    data/               decoded images, shared by all trials

A trial is run by who holds its claim; see claims.py. `record.json` is written last and whole, by the holder alone, and
one of a trial that is done or has diverged is never replaced; see publish.py. A trial is done or failed if and only if
it is there.
"""

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

from backends.errors import MixlabError, choices
from experiments.files import StoreError, as_json, set_aside, stamp_of, write_json, write_whole
from experiments.machine.environment import environment
from experiments.results import checkpoint, claims, kept, predictions
from experiments.results.claims import Claim
from experiments.results.publish import publish
from experiments.results.record import RECORD_SCHEMA, is_final, read
from experiments.results.shape import faults
from experiments.spec.trial import Trial, as_tree

CHECKPOINT = "checkpoint.safetensors"
RESOLVED, TRIALS = "resolved.json", "trials.txt"  # of an ablation
LABELS = '{"labels": '  # how RESOLVED begins, so that the labels are read without the specs
WAITING = ', "waiting": '  # what follows them where fields are tuned
HALVING = ', "halving": true'  # and this where it is by halving


class Store:
    """The results directory at `root`; it is made when something is first written."""

    def __init__(self, root: Path):
        self.root = root

    def folder(self, trial_id: str) -> Path:
        return self.root / "trials" / trial_id

    def checkpoint(self, trial_id: str) -> Path:
        return self.folder(trial_id) / CHECKPOINT

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def limits(self) -> Path:
        """The ceilings of its machines; see ceilings.py."""
        return self.root / "limits.json"

    @property
    def compiled(self) -> Path:
        """The folder of compiled programs, one for each kind of processor, for which they were made."""
        return self.root / "compiled" / re.sub(r"\W+", "_", str(environment()["processor"])).strip("_")

    def trial_ids(self) -> list[str]:
        """Ids of the trials that the store has a folder of."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.root / "trials") as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
        return []

    def check_folder(self) -> None:
        """Check that the store can be a folder. Raises: StoreError: it is a file."""
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(
                f"command line: --store: expected a folder, which may not exist yet, got the file {self.root}"
            )

    def check_writable(self) -> None:
        """Check that the store can be written. Raises: StoreError: it cannot, with the cause."""
        write_whole(self.root / ".writable", b"")
        (self.root / ".writable").unlink(missing_ok=True)

    def ablation(self, name: str) -> Path:
        """The folder of an ablation; see archive.py."""
        return self.root / "ablations" / name

    def ablations(self) -> list[str]:
        """Names of the ablations that were run with this store."""
        files = (path for file in (RESOLVED, TRIALS) for path in self.root.glob(f"ablations/*/{file}"))
        return sorted({path.parent.name for path in files})

    def ablation_labels(self, name: str) -> dict[str, str]:
        """Trials of an ablation as it was last run: id -> what it sets.

        Raises: MixlabError: no ablation of that name was run with this store, or its file is damaged.
        """
        return self._ablation_head(name)[0]

    def ablation_waiting(self, name: str) -> int:
        """How many trials of its table were not known then, since what is tuned was not chosen. Raises: as above."""
        return self._ablation_head(name)[1]

    def ablation_halves(self, name: str) -> bool:
        """Whether it tunes by halving, so that the state of a trial is known by all of them. Raises: as above."""
        return self._ablation_head(name)[2]

    def _ablation_head(self, name: str) -> tuple[dict[str, str], int, bool]:
        folder = self.ablation(name)
        try:
            text = (folder / RESOLVED).read_text()
            if text.startswith(LABELS):
                labels, end = json.JSONDecoder().raw_decode(text, len(LABELS))
                if not text.startswith(WAITING, end):
                    return dict(labels), 0, False
                waiting, end = json.JSONDecoder().raw_decode(text, end + len(WAITING))
                return dict(labels), waiting, text.startswith(HALVING, end)
            if not text.startswith("{"):
                raise ValueError("it has another beginning")
        except FileNotFoundError:
            pass  # an earlier version of Mixlab wrote TRIALS alone
        except (OSError, ValueError, TypeError) as error:
            raise MixlabError(
                f"store: {folder / RESOLVED} is damaged ({error}); run or submit the ablation's YAML again"
            ) from error
        if name not in self.ablations():
            raise MixlabError(f"store: {self.root} has no ablation {name!r}; {choices(name, self.ablations())}")
        lines = (folder / TRIALS).read_text().splitlines()
        return {trial_id: label for trial_id, _, label in (line.partition("\t") for line in lines)}, 0, False

    def find(self, prefix: str) -> str:
        """The trial whose id starts with `prefix`.

        Raises: MixlabError: none does, or several do.
        """
        matches = [trial_id for trial_id in self.trial_ids() if trial_id.startswith(prefix)]
        if len(matches) != 1:
            which = f"{len(matches)} trial ids start with" if matches else "no trial id starts with"
            raise MixlabError(
                f"store: {which} {prefix!r} in {self.root}; {choices(prefix, matches or self.trial_ids())}"
            )
        return matches[0]

    def begin(self, trial: Trial, environment: dict[str, Any]) -> None:
        """Write the spec and the environment of a trial before it is trained."""
        write_json(self.folder(trial.id) / "spec.json", as_tree(trial))
        write_json(self.folder(trial.id) / "env.json", environment)

    def finish(self, trial_id: str, record: dict[str, Any], claim: Claim | None = None) -> bool:
        """Write the record, then drop what it makes superfluous.

        Args:    claim: of who writes; None: it is taken for that long.
        Returns: whether it was written; False: the trial has ended already by another process, done or diverged.
        Raises:  ClaimLost: another process has the trial, and nothing was written.    StoreError.
        """
        if claim is None:
            claim = Claim(self.folder(trial_id))
            try:
                return self.finish(trial_id, record, claim)
            finally:
                claim.release()
        path, is_done = self.folder(trial_id) / "record.json", record["status"] == "done"
        written = publish(path, as_json(record), claim, lambda other: self._may_replace(trial_id, other), is_done)
        if written and not is_done:
            kept.forget(self.folder(trial_id))
            predictions.forget(self.folder(trial_id))
            return True
        last = self.checkpoint(trial_id)
        for superfluous in (last, checkpoint.before(last)):
            superfluous.unlink(missing_ok=True)
        kept.drop_saved(self.folder(trial_id))
        return written

    def _may_replace(self, trial_id: str, path: Path) -> bool:
        """Tell whether a record may be replaced by a new one: it is not final, or it is corrupt and is set aside."""
        try:
            record = self._read_record(trial_id, path, with_curve=False)
        except FileNotFoundError:
            return True
        except CorruptRecord as error:
            set_aside(error.path)
            return True
        return not is_final(record)

    def can_go_on(self, trial_id: str) -> bool:
        """Tell whether a trial has a checkpoint that can be opened."""
        return checkpoint.newest_progress(self.checkpoint(trial_id)) is not None

    def record(self, trial_id: str, with_curve: bool = False) -> dict[str, Any] | None:
        """The record of a trial that is done or failed, else None; its curve is empty unless it is asked for.

        Raises: CorruptRecord: it cannot be read as a record of this trial.   OtherSchema.
        """
        try:
            return self._read_record(trial_id, self.folder(trial_id) / "record.json", with_curve)
        except FileNotFoundError:
            return None

    def _read_record(self, trial_id: str, path: Path, with_curve: bool) -> dict[str, Any]:
        try:
            record = read(path, with_curve)
        except FileNotFoundError:
            raise
        except IsADirectoryError as error:
            raise CorruptRecord(path, "it is a folder") from error
        except OSError as error:
            raise StoreError(f"store: cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise CorruptRecord(path, f"it is not text ({error})") from error
        except (ValueError, RecursionError) as error:
            raise CorruptRecord(path, f"it is not JSON ({error})") from error
        if not isinstance(record, dict) or record.get("id") != trial_id:
            raise CorruptRecord(path, f"it is not the record of trial {trial_id}")
        schema = record.get("schema")
        if isinstance(schema, int) and schema != RECORD_SCHEMA:
            raise OtherSchema(
                f"store: {path} has schema {schema}, and this version of Mixlab reads {RECORD_SCHEMA}: use the version "
                f"that wrote it (its commit is in the file), or choose another --store"
            )
        if wrong := next(faults(record), None if schema == RECORD_SCHEMA else "schema"):
            raise CorruptRecord(path, f"its {wrong} is missing, of a wrong type or out of range")
        return record if with_curve else {**record, "curve": []}

    def sound_record(self, trial_id: str, with_curve: bool = False) -> dict[str, Any] | None:
        """The record of a trial; None also if it is corrupt, of another version, or cannot be read."""
        try:
            return self.record(trial_id, with_curve)
        except MixlabError:
            return None

    def recorded_status(self, trial_id: str) -> str | None:
        """The status of a trial's record, done or failed; None without a sound record."""
        return (self.sound_record(trial_id) or {}).get("status")

    def recorded_at(self, trial_id: str) -> float:
        """The time when the record was written, by the file server's clock; 0 without a record."""
        try:
            return (self.folder(trial_id) / "record.json").stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def stamp(self, trial_id: str) -> str:
        """A text that changes whenever the record is written anew; empty without a record."""
        return stamp_of(f"{self.root}/trials/{trial_id}/record.json")  # text: of ten thousand, in a third of the time

    def record_or_set_aside(self, trial_id: str) -> tuple[dict[str, Any] | None, str | None]:
        """The record of a trial; a corrupt one is moved out of the way and counts as none, with a sentence on it."""
        try:
            return self.record(trial_id), None
        except CorruptRecord as error:
            return None, f"{error}; set aside as {set_aside(error.path).name}, the trial runs again"

    def owner(self, trial_id: str) -> dict[str, Any] | None:
        """The process that runs a trial now: pid, host, and its last step, loss and images/s; None: nobody alive."""
        return claims.owner(self.folder(trial_id))


class OtherSchema(StoreError):
    """The error that another version of Mixlab wrote a record."""


class CorruptRecord(MixlabError):
    """The error that a file is no record; `path` is the file."""

    def __init__(self, path: Path, how: str):
        super().__init__(f"store: {path} is corrupt: {how}")
        self.path = path
