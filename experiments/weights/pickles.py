"""Pickles taken apart without running anything in them.

A pickle is a program: its instructions import names and call them. Here each instruction only builds a tree of plain
values, in which an imported name is a `Name` and a call is a `Call`: a record of what would have been called, with
what. No name is looked up and nothing is called, whatever the file says. What the records mean is up to the reader.
"""

import pickletools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

# Modules and built-in functions that no weights need. Nothing of them is run; a file that names them is refused so
# that its owner learns of it before another program opens it.
HARMFUL_MODULES = frozenset(
    ("os", "posix", "nt", "subprocess", "pty", "sys", "shutil", "socket", "ctypes", "importlib")
)
HARMFUL_FUNCTIONS = frozenset(("eval", "exec", "execfile", "compile", "open", "__import__", "input", "breakpoint"))
BUILTINS = ("builtins", "__builtin__")


class Damaged(ValueError):
    """The error that bytes are no whole pickle."""


class Harmful(ValueError):
    """The error that a pickle names what no weights need. The text is the name."""


@dataclass(frozen=True, eq=False)
class Name:
    """A name that the pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Call:
    """A call that the pickle would make, and what it would then give to the object that comes back."""

    function: Any
    arguments: Any
    state: Any = None  # as for __setstate__
    items: dict[Any, Any] = field(default_factory=dict)  # as for __setitem__
    values: list[Any] = field(default_factory=list)  # as for append and add

    def __str__(self) -> str:
        return str(self.function) if isinstance(self.function, Name | Call) else "an object"


@dataclass(frozen=True, eq=False)
class Reference:
    """A persistent id: something that lies outside the pickle, such as the storage of a tensor."""

    key: Any


@dataclass(frozen=True, eq=False)
class Tree:
    """The value of a pickle, and every call and reference in it."""

    value: Any
    calls: list[Call]
    references: list[Reference]


def read(file: BinaryIO) -> Tree:
    """The tree of the pickle at the file's position, which is left behind it.

    Raises: Damaged; Harmful.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return Tree(machine.stack.pop(), machine.calls, machine.references)
            machine.step(opcode.name, argument)
    except Harmful:
        raise
    except Exception as error:  # pickletools and the stack have many ways to say that bytes are no pickle
        raise Damaged(str(error)) from error
    raise Damaged("it has no end")


_ATOMS = re.compile(r"(BIN)?INT\d?|LONG\d?|(BIN|SHORT_BIN|SHORT_|)(STRING|BYTES8?|UNICODE8?)|BYTEARRAY8|(BIN)?FLOAT")
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARKED: dict[str, Callable[[list[Any]], Any]] = {
    "LIST": list,
    "TUPLE": tuple,
    "DICT": lambda items: dict(_pairs(items)),
    "FROZENSET": frozenset,
}


class _Machine:
    """The stack of a pickle. Each step changes it as an unpickler does, except that nothing is imported or called."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.calls: list[Call] = []
        self.references: list[Reference] = []

    def step(self, name: str, argument: Any) -> None:
        if _ATOMS.fullmatch(name):
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(self._take(_TUPLES[name])))
        elif name in _MARKED:
            self.stack.append(_MARKED[name](self._take_marked()))
        else:
            self._act(name, argument)

    def _act(self, name: str, argument: Any) -> None:
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(len(self.stack))
            case "POP":
                self.stack.pop()
            case "POP_MARK":
                self._take_marked()
            case "DUP":
                self.stack.append(self.stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "APPEND":
                _extend(self.stack[-2], self._take(1))
            case "APPENDS" | "ADDITEMS":
                values = self._take_marked()
                _extend(self.stack[-1], values)
            case "SETITEM":
                _items(self.stack[-3]).update(_pairs(self._take(2)))
            case "SETITEMS":
                pairs = _pairs(self._take_marked())
                _items(self.stack[-1]).update(pairs)
            case "PERSID" | "BINPERSID":
                self.references.append(Reference(argument if name == "PERSID" else self.stack.pop()))
                self.stack.append(self.references[-1])
            case _:
                self._call(name, argument)

    def _call(self, name: str, argument: Any) -> None:
        match name:
            case "GLOBAL":
                self.stack.append(_name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                self.stack.append(_name(*self._take(2)))
            case "REDUCE" | "NEWOBJ":
                self._push_call(*self._take(2))
            case "NEWOBJ_EX":
                function, arguments, keywords = self._take(3)
                self._push_call(function, (*arguments, keywords))
            case "INST":
                self._push_call(_name(*argument.split(" ", 1)), tuple(self._take_marked()))
            case "OBJ":
                function, *arguments = self._take_marked()
                self._push_call(function, tuple(arguments))
            case "BUILD":
                (state,) = self._take(1)
                if isinstance(self.stack[-1], Call):  # nothing else has a state here
                    self.stack[-1].state = state
            case _:
                raise Damaged(f"it has the instruction {name}, which no file of weights has")

    def _push_call(self, function: Any, arguments: Any) -> None:
        self.calls.append(Call(function, arguments))
        self.stack.append(self.calls[-1])

    def _take(self, num: int) -> list[Any]:
        if len(self.stack) < num:
            raise Damaged("its stack is empty")
        taken = self.stack[-num:]
        del self.stack[-num:]
        return taken

    def _take_marked(self) -> list[Any]:
        mark = self.marks.pop()
        taken = self.stack[mark:]
        del self.stack[mark:]
        return taken


def _name(module: Any, name: Any) -> Name:
    imported = Name(str(module), str(name))
    parts = str(imported).split(".")
    if HARMFUL_MODULES.intersection(parts[:-1]) or (parts[0] in BUILTINS and parts[-1] in HARMFUL_FUNCTIONS):
        raise Harmful(str(imported))
    return imported


def _extend(target: Any, values: list[Any]) -> None:
    if isinstance(target, Call):
        target = target.values
    (target.update if isinstance(target, set) else target.extend)(values)


def _items(target: Any) -> dict[Any, Any]:
    items: dict[Any, Any] = target.items if isinstance(target, Call) else target
    return items


def _pairs(flat: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)
