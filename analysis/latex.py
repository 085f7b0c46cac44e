"""A table for LaTeX, with booktabs: compiles as it is, and can be read into a paper with \\input."""

import re
from collections.abc import Sequence

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"$\pm$", "°": r"$^{\circ}$", "†": r"$^{\dagger}$",
    "‡": r"$^{\ddagger}$", "*": r"$^{*}$", "—": "---",
}  # fmt: skip
LETTERS = {chr(code) for code in range(0xC0, 0x100)} - set("\xd7\xf7")  # of Latin-1, without its two signs
# As a main file it brings its own class and ends itself; within a document, where \@nodocument is \relax, neither.
BEGIN = r"""% Needs \usepackage[T1]{fontenc} and \usepackage{booktabs} where it is \input.
\makeatletter
\ifx\@nodocument\relax \let\mixlabend\relax
\else \documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs}\pagestyle{empty}
\begin{document}\def\mixlabend{\end{document}}\fi
\makeatother"""


def escape(text: str) -> str:
    """Any text as LaTeX prints it with T1 fonts: Western letters as they are, others a question mark; one line."""
    shown = "".join(SPECIAL.get(letter, letter) for letter in " ".join(text.split()))
    shown = "".join(letter if " " <= letter <= "~" or letter in LETTERS else "?" for letter in shown)
    return re.sub(r"(?<![\w.$-])-(?=\d)", "$-$", shown)


def document(
    layout: Sequence[Sequence[str]], num_rows: int, name: str, above: Sequence[str], below: Sequence[str]
) -> str:
    """Args: num_rows: columns that name a row.    above, below: lines of the caption and of the notes."""
    header, *body = ([escape(cell) for cell in row] for row in layout)
    lines = [
        BEGIN,
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{' '.join(_sentence(escape(line)) for line in above)}}}",
        rf"\label{{tab:{''.join(letter for letter in name if letter.isalnum() or letter in '.-')}}}",
        rf"\begin{{tabular}}{{{'l' * num_rows}{'r' * (len(header) - num_rows)}}}",
        r"\toprule",
        f"{' & '.join(header)} \\\\",
        r"\midrule",
        *(f"{' & '.join(row)} \\\\" for row in body),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\footnotesize {escape(line)}" for line in below),
        r"\end{table}",
        r"\mixlabend",
    ]
    return "\n".join(lines) + "\n"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."
