"""What a trial needs by its microbatches, devices and remat, and which of these settings fit into a memory."""

from dataclasses import dataclass
from itertools import product

from analysis.table.layout import aligned
from analysis.terminal import shows_lines
from backends.errors import counted
from experiments.machine import memory
from experiments.running import fit, storage
from experiments.running.fitting import Setting, least_change, microbatches
from experiments.spec.trial import Trial

MIB, GIB = 2**20, 2**30
_NAMES = {MIB: "MiB", GIB: "GiB"}
MAX_PARTS = 64  # microbatches that have a row, unless more are asked for or needed
DEVICES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Memory:
    """A memory that trials are held against."""

    num_bytes: float
    is_here: bool = False  # this machine's, for trials of the CPU; else that of a device, or of a machine with a CPU

    @classmethod
    def here(cls, trial: Trial) -> "Memory | None":
        """What is available on this machine; None: the trial asks for a device with memory of its own."""
        return cls(memory.available_bytes(), is_here=True) if trial.run.device in ("auto", "cpu") else None

    def on_host(self, trial: Trial) -> bool:
        """Whether it is that of a CPU for a trial: `run.device: auto` is a CPU here and another device elsewhere."""
        return self.is_here or trial.run.device == "cpu"

    def devices(self, trial: Trial) -> list[int]:
        """Numbers of devices that are looked at: on a CPU no more than the trial has, as each takes as much again."""
        own = trial.run.devices
        return sorted({own, *(number for number in DEVICES if number < own or not self.on_host(trial))})

    def needed(self, trial: Trial) -> int:
        """The estimate of what a trial takes of it."""
        if self.on_host(trial):
            return storage.needed_bytes(trial, True)
        return storage.needed_of_device(trial, self.num_bytes)

    def fits(self, trial: Trial) -> bool:
        return self.needed(trial) <= self.num_bytes

    def __str__(self) -> str:
        size = self.num_bytes / GIB
        return f"the {size:.1f} GiB that are available here to a CPU" if self.is_here else f"{size:.4g} GiB"


def read(text: str) -> Memory:
    """The memory of a device, as the command line has it.  Raises: MixlabError: it is no positive number."""
    return Memory(GIB * shows_lines.read(text, "--memory", "GiB, such as 80"))


def lines(trial: Trial, held: Memory) -> list[str]:
    """A table of a trial's settings, which of them fit into a memory, and the least change that does."""
    found = least_change(trial, held.fits, held.devices(trial))
    table = _Table.of(trial, held, max(MAX_PARTS, trial.train.microbatches, found.microbatches if found else 1))
    told = [*table.left_out(), _told(trial, found, held, table.least.on(trial))]
    return [*aligned(table.rows()), *told, *(["for a device that is not here: --memory GIB"] if held.is_here else [])]


def head(trial: Trial) -> str:
    """What a trial needs as it is set, and how that is."""
    setting = Setting.of(trial)
    needed = storage.needed_bytes(trial)
    unit, digits = _unit({setting: needed})
    whose = _of_several(setting.devices, trial.run.device in ("auto", "cpu"))  # as needed_bytes takes it
    return (
        f"memory {needed / unit:,.{digits}f} {_NAMES[unit]}{whose} at the peak, by estimate, with train.microbatches="
        f"{setting.microbatches} run.devices={setting.devices} run.remat={str(setting.remat).lower()}"
    )


def _told(trial: Trial, found: Setting | None, held: Memory, least: Trial) -> str:
    """Args: least: the trial in the setting that needs the least."""
    if held.fits(trial):
        return f"as it is set, it fits into {held}"
    if found:
        return f"the least change that fits into {held}: {found.words(trial)}"
    return f"none of these fits into {held}; set {fit.less(least, fit.need(least, held.on_host(trial)))}"


@dataclass(frozen=True)
class _Table:
    """What a trial needs in each setting. own: that of the trial.   needed: bytes."""

    own: Setting
    held: Memory
    on_host: bool
    needed: dict[Setting, int]

    @classmethod
    def of(cls, trial: Trial, held: Memory, most: int) -> "_Table":
        """Args: most: microbatches that are looked at."""
        own = Setting.of(trial)
        parts = [number for number in microbatches(trial) if number <= most]
        sizes = product(parts, held.devices(trial), (False, True))
        settings = [Setting(*one, shares=own.shares and one[1] > 1) for one in sizes]
        needed = {one: held.needed(one.on(trial)) for one in settings if one.is_valid}
        return cls(own, held, held.on_host(trial), needed)

    @property
    def least(self) -> Setting:
        """The setting that needs the least."""
        return min(self.needed, key=lambda one: (self.needed[one], not one.remat))

    def rows(self) -> list[list[str]]:
        """A row for each number of microbatches, up to the one from which on nothing gets less."""
        cells = self._shown()
        columns = sorted({(one.devices, one.remat) for one in cells})
        unit, digits = _unit(cells)
        width = len(f"{max(cells.values()) / unit:,.{digits}f}")

        def cell(setting: Setting) -> str:
            if setting not in cells:
                return "-".rjust(width)
            fits = " fits" * self._fits(setting)
            return f"{cells[setting] / unit:>{width},.{digits}f}{fits}{' (as set)' * (setting == self.own)}"

        names = [_named(devices, remat, len(columns) > 2) for devices, remat in columns]
        whose = _of_several(max(one.devices for one in cells), self.on_host)
        rows = [[f"{_NAMES[unit]}{whose} by train.microbatches", *names]]
        for parts in sorted({one.microbatches for one in cells}):
            rows.append([str(parts), *(cell(self._setting(parts, *column)) for column in columns)])
        return rows

    def _setting(self, parts: int, devices: int, remat: bool) -> Setting:
        """With the optimizer's state shared out as the trial's own is."""
        return Setting(parts, devices, remat, self.own.shares and devices > 1)

    def left_out(self) -> list[str]:
        """A line on the numbers of devices that have no column."""
        others = [number for number in sorted({one.devices for one in self.needed}) if number not in self._devices()]
        cells = self._shown()
        pairs = [(one, other) for number in others for one, other in self._pairs(number) if other in cells]
        if not pairs:
            return []
        unit, digits = _unit(cells)
        most = max(abs(self.needed[one] - self.needed[other]) for one, other in pairs) / unit
        by = f"by at most {most:,.{digits}f} {_NAMES[unit]}, and not what fits"
        return [f"run.devices={', '.join(map(str, others))} changes these {by}"]

    def _shown(self) -> dict[Setting, int]:
        """The settings that have a cell: of each column up to where the last of them gets no less."""
        devices = self._devices()
        columns: dict[tuple[int, bool], list[tuple[int, int]]] = {}
        for one, size in self.needed.items():
            if one.devices in devices:
                columns.setdefault((one.devices, one.remat), []).append((size, one.microbatches))
        last = max(self.own.microbatches, *(min(column)[1] for column in columns.values()))
        return {x: size for x, size in self.needed.items() if x.devices in devices and x.microbatches <= last}

    def _devices(self) -> list[int]:
        """The trial's own number of devices, and those with which other settings fit than with its own."""
        numbers = sorted({one.devices for one in self.needed})
        return [
            number
            for number in numbers
            if number == self.own.devices or any(self._fits(one) != self._fits(x) for one, x in self._pairs(number))
        ]

    def _pairs(self, devices: int) -> list[tuple[Setting, Setting]]:
        """The settings of so many devices, each with the same one of the trial's own number."""
        numbers = [one for one in self.needed if one.devices == devices]
        pairs = [(one, self._setting(one.microbatches, self.own.devices, one.remat)) for one in numbers]
        return [(one, other) for one, other in pairs if other in self.needed]

    def _fits(self, setting: Setting) -> bool:
        return self.needed[setting] <= self.held.num_bytes


def _of_several(devices: int, on_host: bool) -> str:
    """Whose memory is meant where a trial is on several devices."""
    return "" if devices == 1 else " of all processes together" if on_host else " of each device"


def _named(devices: int, remat: bool, counts_devices: bool) -> str:
    """The head of a column."""
    if not counts_devices:
        return f"run.remat={remat}".lower()
    return f"{counted(devices, 'device')}{', remat' * remat}"


def _unit(needed: dict[Setting, int]) -> tuple[int, int]:
    """The unit in which sizes are shown, in bytes, and the digits behind the point."""
    least, most = min(needed.values()), max(needed.values())
    return (MIB, 0) if most < GIB else (GIB, 1 if least >= GIB else 2)
