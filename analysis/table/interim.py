"""Words on a table whose trials have not all ended: a test at each look is more than one test."""

import pandas as pd


def interim_text(table: pd.DataFrame) -> str:
    """`interim: 6 of 12 trials are done`; empty where all have ended, or none is done. Args: table: of cells.cells."""
    done, coming = int(table["n"].sum()), int(table["interim"].max())
    ended = int((table["planned"] - table["missing"] - table["running"]).sum())
    return f"interim: {done} of {ended + coming} trials are done" if done and coming else ""


def heading_text(table: pd.DataFrame) -> list[str]:
    """The line at the head of the table, if there is any."""
    why = "a test at each look is more than one test, so no * is set before all have ended"
    return [f"{told}; {why}"] if (told := interim_text(table)) else []


def answer_text(table: pd.DataFrame, answer: str) -> str:
    """The answer, which says first that it is interim."""
    told = interim_text(table)
    return f"{told[0].upper()}{told[1:]}. {answer}" if told else answer
