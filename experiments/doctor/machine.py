"""The machine: packages, devices, memory, disk and clock."""

from experiments.doctor.check import Asked, Check


def checks(asked: Asked) -> list[Check]:
    """What a machine must have."""
    return []
