"""Time limits as Slurm writes them, in minutes."""

import re

CLOCK = re.compile(r"(?:([0-9]+)-)?([0-9]+)(?::([0-9]+))?(?::([0-9]+))?")
FORMS = "minutes (90), H:M:S (1:30:00), D-H (2-0), D-H:M or D-H:M:S (2-00:00:00)"
DAY_H, HOUR_MIN, MINUTE_S = 24, 60, 60


class Unread(Exception):
    """The error that a text is no time limit, or could be two; its words follow the text in an error sentence."""


def asked_minutes(text: str) -> int:
    """The minutes that a user asks for; seconds are rounded up to a minute, as Slurm does.

    Raises: Unread: it is no form of Slurm's, or `M:S`, which many take for hours and minutes.
    """
    match = CLOCK.fullmatch(text)
    if not match or (text.isdecimal() and text != str(int(text))):
        raise Unread(f"is not a time limit; expected {FORMS}")
    days, first, second, third = match.groups()
    if days is None and second is not None and third is None:
        short, long = f"{int(first)} min {int(second)} s", f"{int(first)} h {int(second)} min"
        raise Unread(f"is {short} to Slurm and {long} to many; write minutes alone, or {text}:00 for hours")
    units = [("hours", first, DAY_H)] if days is not None else []
    units += [("minutes", second, HOUR_MIN), ("seconds", third, MINUTE_S)]
    for unit, number, limit in units:
        if number is not None and int(number) >= limit:
            raise Unread(f"has {int(number)} {unit}; expected fewer than {limit}, in one of the forms {FORMS}")
    minutes = limit_minutes(text)
    if not minutes:
        raise Unread("is too small; at least 1 minute (to Slurm, 0 is no limit)")
    return minutes


def limit_minutes(text: str) -> int | None:
    """The minutes of a limit that Slurm shows; None: there is none (`infinite`), or it cannot be read."""
    match = CLOCK.fullmatch(text)
    if not match:
        return None
    days, *numbers = match.groups()
    parts = [int(number) for number in numbers if number is not None]
    if days is None:  # minutes, M:S, H:M:S
        hours, minutes, seconds = (parts + [0] * 3)[:3] if len(parts) == 3 else (0, *parts, *([0] * (2 - len(parts))))
    else:
        hours, minutes, seconds = (parts + [0] * 3)[:3]
    whole = (int(days or 0) * DAY_H + hours) * HOUR_MIN + minutes
    return whole + bool(seconds)
