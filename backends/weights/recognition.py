"""Recognition of a model among a file's arrays, and of its format: the names of a format, all below one prefix.

Files hold more: an average of the weights, the state of an optimizer, a loss. One model is taken by rules that can be
told in a sentence, and what is taken, what lies beside it and what is left out is said; nothing is cut out in silence.

- A model is all names of a format below one prefix, whatever that is called: `state_dict/`, `model.`, `opt/target/`.
- An array below the prefix that the format does not know belongs to another architecture: the file is refused. A text
  or a single whole number does not.
- So it is with an array of two or more axes beside the prefix in the same mapping: it may be one more layer.
- What is named as a loss, a metric, an optimizer's state or an average is no layer: it is left out.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from backends.arrays import Array, State
from backends.errors import choices
from backends.weights.form import Format, NotAModel
from backends.weights.formats import FORMATS


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What savers usually put around the weights; of several models in a file, one that lies in these alone is taken.
USUAL = _words(
    "state_dict model_state_dict model_state params model net network module _orig_mod weights target opt optimizer"
)
# Words in a name that say what it is: an average of the weights; numbers of an optimizer that have the weights' names;
# no layer.
AVERAGES = _words("ema avg average averaged averaging swa polyak")
MOMENTS = _words(
    "opt_state param_states mu nu momentum moment moments first_moment exp_avg exp_avg_sq grad grads gradients"
)
NO_LAYERS = AVERAGES | _words(
    "criterion loss losses metric metrics acc accuracy auroc optimizer optimizers optim opt scheduler schedulers lr "
    "epoch step steps rng"
)
STATE_OF_OPTIMIZER = re.compile(r"(^|.*[./])opt(imizer)?[./]state[./]")  # beside opt/target, which is the weights
NEAR = 0.2  # below this share of names in common a format is not even named as the nearest


@dataclass(frozen=True)
class Origin:
    """The place of the weights in a file.

    taken: the prefix of their names.   average: it is named as an average.   left_out: names of arrays of no model.
    beside: the prefixes of other models in the file, averages first.
    """

    taken: str = ""
    average: bool = False
    beside: tuple[str, ...] = ()
    averages: int = 0  # how many of `beside` are averages
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Candidate:
    """Names of a file below one prefix, compared with one format."""

    form: Format
    prefix: str
    inner: frozenset[str]  # the names below the prefix, without it

    @cached_property
    def table(self) -> set[str]:
        return {name for row in self.form.table(self.inner) for name in row.own}

    @property
    def missing(self) -> list[str]:
        return sorted(self.table - self.inner)

    @property
    def more(self) -> list[str]:
        """The names below the prefix that the format does not know."""
        return sorted(self.prefix + name for name in self.inner - self.table if not _is_no_layer(name))

    @property
    def likeness(self) -> float:
        return len(self.table & self.inner) / len(self.table | self.inner)

    @property
    def label(self) -> str:
        return self.prefix.rstrip("./")

    @property
    def words(self) -> list[str]:
        return [word for word in re.split(r"[./]", self.prefix) if word]

    @property
    def is_average(self) -> bool:
        return any(AVERAGES & _parts(word) for word in self.words)

    def beside(self, arrays: Mapping[str, Array]) -> list[str]:
        """Arrays in the same mapping, not below the prefix, that may be further layers."""
        mapping, flat = self.prefix[: self.prefix.rfind("/") + 1], self.form.is_nested
        if flat:  # "/" parts layers too, so that only the usual words tell a mapping
            usual = [i for i, word in enumerate(self.words) if word in USUAL]
            mapping = "".join(f"{word}/" for word in self.words[: usual[-1] + 1]) if usual else ""
        others = {name[len(mapping) :]: x for name, x in arrays.items() if name.startswith(mapping)}
        return sorted(
            mapping + name
            for name, x in others.items()
            if x.ndim > 1 and x.dtype.kind == "f" and not (mapping + name).startswith(self.prefix)
            if (flat or "/" not in name) and not _is_no_layer(name)
        )


def select(arrays: Mapping[str, Array], average: bool = False, group: str | None = None) -> tuple[State, Origin]:
    """The arrays of one model, by the names of its format.

    Args:   average: the average of the weights that lies beside them.   group: the prefix of the model to take.
    Raises: NotAModel: no model is complete, several are, or it is a part of something else.
    """
    possible = candidates(arrays)
    models = [one for one in possible if not one.missing]
    if not models:
        raise NotAModel(_nearest(possible, arrays))
    chosen = _choose(models, arrays, average, group)
    of_models = {one.prefix + name for one in models for name in one.table}
    further = [] if group else [name for name in chosen.beside(arrays) if name not in of_models]
    more = [name for name in chosen.more if not _is_a_note(arrays[name])]
    if more or further:
        raise NotAModel(_more(chosen, more or further, bool(more)))
    others = sorted((one for one in models if one is not chosen), key=lambda one: not one.is_average)
    left_out = [name for name in arrays if name not in of_models]
    origin = Origin(
        chosen.label,
        chosen.is_average,
        tuple(one.label for one in others),
        sum(one.is_average for one in others),
        tuple(left_out),
    )
    own = {chosen.prefix + name: name for name in chosen.table}
    return {own[name]: array for name, array in arrays.items() if name in own}, origin


def candidates(names: Collection[str]) -> list[Candidate]:
    """Candidates: prefixes with names of a format's first block below them, except those of an optimizer's moments."""
    present, below = frozenset(names), []
    for form in FORMATS.values():
        ends = re.compile(rf"(|.*[./])(?:{'|'.join(map(re.escape, form.anchors()))})")
        prefixes = dict.fromkeys(match[1] for name in present if (match := ends.fullmatch(name)))
        for prefix in sorted(prefixes):
            inner = frozenset(name[len(prefix) :] for name in present if name.startswith(prefix))
            below.append(Candidate(form, prefix, inner))
    return [one for one in below if not (MOMENTS.intersection(one.words) or STATE_OF_OPTIMIZER.match(one.prefix))]


def recognise(names: Collection[str]) -> Format:
    """The format whose names these are, no more and no less.

    Raises: NotAModel: no format has just these; says the nearest and what it lacks.
    """
    present = frozenset(names)
    tried = [Candidate(form, "", present) for form in FORMATS.values()]
    for one in tried:
        if one.table == present:
            return one.form
    raise NotAModel(_nearest(tried, present))


def _choose(models: list[Candidate], arrays: Mapping[str, Array], average: bool, group: str | None) -> Candidate:
    fit = [one for one in models if group is None or group in (one.label, *one.words)]
    labels = ", ".join(repr(one.label or "(no prefix)") for one in models)
    if group is not None and not fit:
        raise NotAModel(f"--group: expected the prefix of a model, got {group!r}; allowed: {labels}")
    if average and not (fit := [one for one in fit if one.is_average]):
        raise NotAModel(f"--ema: no average lies beside the weights; the file holds {labels}")
    plain = fit if average else [one for one in fit if not one.is_average] or fit
    usual = [one for one in plain if USUAL.issuperset(one.words)]
    plain = _different(usual if usual and not average else plain, arrays)
    if len(plain) == 1:
        return plain[0]
    taken = [f"--group {one.label}" for one in plain[:3] if one.label]
    raise NotAModel(f"it holds {len(plain)} models, and none is the obvious one; choose one: {', '.join(taken)}")


def _different(models: list[Candidate], arrays: Mapping[str, Array]) -> list[Candidate]:
    """The models without those that hold the same numbers as one before them."""
    kept: list[Candidate] = []
    for one in models:
        if not any(_are_equal(one, other, arrays) for other in kept):
            kept.append(one)
    return kept


def _are_equal(one: Candidate, other: Candidate, arrays: Mapping[str, Array]) -> bool:
    pairs = ((arrays[one.prefix + name], arrays.get(other.prefix + name)) for name in one.table)
    return one.form is other.form and all(
        b is not None and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs
    )


def _nearest(tried: list[Candidate], names: Collection[str]) -> str:
    nearest = max(tried, key=lambda one: one.likeness, default=None)
    if nearest is None or nearest.likeness < NEAR:
        came = f"its names ({some(sorted(names))}) are of no known format" if names else "it holds no arrays"
        return f"{came}; {choices('', (*FORMATS, 'mixlab'))}"
    faults = [f"lacks {some(nearest.missing)}"] * bool(nearest.missing)
    return _near(nearest, [*faults, *([f"has {some(nearest.more)} besides"] * bool(nearest.more))])


def _more(chosen: Candidate, names: list[str], inside: bool) -> str:
    hint = "" if inside else f", which may be further layers; --group {chosen.label} takes its model without them"
    return _near(chosen, [f"has {some(names)} besides{hint}"])


def _near(one: Candidate, faults: list[str]) -> str:
    return f"its names are nearest to those of the format {one.form.name!r}, but it {' and '.join(faults)}"


def some(names: Collection[str]) -> str:
    """The first three of the names, and how many more there are."""
    first = list(names)[:3]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, first)) + more


def _parts(word: str) -> set[str]:
    return set(re.split(r"[^a-z]+", word.lower()))


def _is_a_note(array: Array) -> bool:
    """Tell whether an array is a text, or a whole number such as a count of steps, which no model computes with."""
    return array.dtype.kind in "SU" or (array.ndim == 0 and array.dtype.kind in "iub")


def _is_no_layer(name: str) -> bool:
    return bool(NO_LAYERS & _parts(re.split(r"[./]", name)[0]))
