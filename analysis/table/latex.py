"""A table for LaTeX, with booktabs: compiles as it is, and can be read into a paper with \\input."""

import re
import unicodedata
from collections.abc import Sequence

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\`{}", "±": r"$\pm$", "\u00d7": r"$\times$", "·": r"$\cdot$",
    "µ": r"$\mu$", "μ": r"$\mu$", "∝": r"$\propto$", "≤": r"$\leq$", "≥": r"$\geq$", "→": r"$\rightarrow$",
    "†": r"$^{\dagger}$", "‡": r"$^{\ddagger}$", "*": r"$^{*}$", "—": "---", "\u2013": "--",
    "\u2019": "'", "\u2018": r"\textquoteleft{}", "“": r"\textquotedblleft{}", "”": r"\textquotedblright{}",
    "…": r"\dots{}",
}  # fmt: skip
LIGATURES = "-,"  # which T1 fonts join to dashes and quotation marks where there are two
LETTERS = {chr(code) for code in range(0xC0, 0x100)} - set("\xd7\xf7")  # of Latin-1, without its two signs
# As a main file it brings its own class and ends itself; within a document, where \@nodocument is \relax, neither.
BEGIN = r"""% Needs \usepackage[T1]{fontenc} and PACKAGES where it is \input.
\makeatletter
\ifx\@nodocument\relax \let\mixlabend\relax
\else \documentclass{article}\usepackage[T1]{fontenc}PACKAGES\pagestyle{empty}
\begin{document}\def\mixlabend{\end{document}}\fi
\makeatother"""

# Around a tabular: one that is wider than the text is made smaller, where graphicx is there, and no other.
FITTED = (
    (r"\smallskip", r"\sbox0{\ignorespaces"),
    (
        r"\unskip}\ifdim\wd0>\linewidth \ifdefined\resizebox \resizebox{\linewidth}{!}{\usebox0}\else \usebox0\fi",
        r"\else \usebox0\fi\par\smallskip",
    ),
)


def escape(text: str) -> str:
    """The LaTeX that prints a text on one line with T1 fonts; letters that they lack become numbers, `[U+03B1]`."""
    plain = " ".join(unicodedata.normalize("NFC", text).split())
    shown = "".join(_letter(letter, after) for letter, after in zip(plain, f"{plain[1:]} ", strict=False))
    return re.sub(r"(?<![\w.$}-])-(?=\d)", "$-$", shown)


def _letter(letter: str, after: str) -> str:
    if letter in LIGATURES and letter == after:
        return f"{letter}{{}}"
    if letter in SPECIAL:
        return SPECIAL[letter]
    return letter if " " <= letter <= "~" or letter in LETTERS else f"[U+{ord(letter):04X}]"


def _row(cells: Sequence[str]) -> str:
    r"""A line of the table. A bracket at its beginning would be taken for an option of the \\ or the rule before it."""
    first, *others = map(escape, cells)
    return f"{' & '.join(('{}' + first if first.startswith('[') else first, *others))} \\\\"


def document(
    layout: Sequence[Sequence[str]], num_rows: int, name: str, above: Sequence[str], below: Sequence[str]
) -> str:
    """The LaTeX file of a table.

    Args:   num_rows: columns that name a row.    above, below: lines of the caption and of the notes.
    """
    header, *body = layout
    lines = [
        rf"\begin{{tabular}}{{{'l' * num_rows}{'r' * (len(header) - num_rows)}}}",
        r"\toprule",
        _row(header),
        r"\midrule",
        *map(_row, body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return framed(lines, name, above, below)


def framed(
    tabular: Sequence[str],
    name: str,
    above: Sequence[str],
    below: Sequence[str],
    packages: Sequence[str] = ("booktabs", "graphicx"),
) -> str:
    """The LaTeX file of a tabular. Args: name, above, below: as of `document`.    packages: that it needs."""
    lines = [
        BEGIN.replace("PACKAGES", "".join(rf"\usepackage{{{package}}}" for package in packages)),
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{' '.join(_sentence(escape(line)) for line in above)}}}",
        rf"\label{{tab:{re.sub('[^A-Za-z0-9.-]', '', name)}}}",
        *FITTED[0],
        *tabular,
        *FITTED[1],
        *(rf"\par\footnotesize\raggedright {escape(line)}" for line in below),
        r"\end{table}",
        r"\mixlabend",
    ]
    return "\n".join(lines) + "\n"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."
