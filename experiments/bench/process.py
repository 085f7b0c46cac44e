"""A question to a process of its own, which a compiler or a driver may kill or hang; its memory goes with it."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from backends.errors import MixlabError, show_chain

_CONTEXT = multiprocessing.get_context("spawn")


class Died(Exception):
    """The process ended without an answer."""

    def __init__(self, code: int | None):
        super().__init__(f"ended with exit code {code}")


def answer(
    function: Callable[..., Any],
    *arguments: Any,
    timeout_s: float | None = None,
    started: contextlib.AbstractContextManager[Any] = contextlib.nullcontext(),  # noqa: B008
) -> Any:
    """What a function gives in a process of its own, which ends with this one.

    Args:   started: what the process is started in.
    Raises: MixlabError: the function raised it.    TimeoutError.    Died.
    """
    connection, theirs = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=_main, args=(function, arguments, theirs), daemon=True)
    with started:
        process.start()
    theirs.close()
    try:
        if not connection.poll(timeout_s):
            raise TimeoutError
        found = connection.recv()
    except (EOFError, ConnectionError) as error:
        process.join()
        raise Died(process.exitcode) from error
    finally:
        process.kill()
        process.join()
    if isinstance(found, MixlabError):
        raise found
    return found


def _main(function: Callable[..., Any], arguments: tuple[Any, ...], connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        found = function(*arguments)
    except MixlabError as error:
        show_chain(error)
        found = MixlabError(str(error))
    connection.send(found)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
