"""Findings of the paper on the questions that Mixlab ships. Source: arXiv 2105.01601, section or appendix as named."""

from typing import Any

from experiments.design.ablation import Ablation
from experiments.design.asked import default

# Of values of one field against each other, such as a Mixer against a ViT.
# Source: arXiv 2105.01601, section 3.3 and Table 3.
COMPARED = {
    ("model.token_mixing", "tied", "attention"): (
        "Section 3.3: Mixer gains from more pre-training data even more than ViT, and overfits where there is little. "
        "Table 3: at inference a TPU v3 core passes 1,384 images a second through Mixer-B/16, 861 through ViT-B/16."
    ),
}
# The field that an ablation varies -> the paper's finding.
FINDINGS = {
    "model.token_mixing": (
        "Appendix A: untying the token-mixing MLP, one for each channel, brought no noticeable gain; sharing one for "
        "groups of channels gained less than 1 to 2 % of ImageNet 5-shot top-1 by reshaping, and 3 to 4 % for S/32 "
        "alone by learned views."
    ),
    "model.channel_mixing": (
        "Section 2: tying the channel-mixing MLP over positions gives positional invariance, a prominent feature of "
        "convolutions; the paper does not measure the untied form."
    ),
    "model.position_embedding": (
        "Section 2: no position embedding is used, because token mixing is sensitive to the order of its inputs."
    ),
    "data.permutation": (
        "Section 3.4: with patches and the pixels within them shuffled Mixer is as before; with all pixels shuffled it "
        "loses about 45 %, a ResNet50x1 about 75 %."
    ),
    "data.fraction": (
        "Section 3.3: with equal steps on 3, 10, 30 and 100 % of JFT all models overfit at 3 %, and the larger models "
        "gain most from more data."
    ),
}


# The data of those findings that were measured.
DATA = {
    "model.token_mixing": "JFT-300M and ImageNet",
    "data.permutation": "JFT-300M and ImageNet",
    "data.fraction": "JFT-300M and ImageNet",
}


# The values of those findings that are about values of their own: two of them are to be in the table.
VALUES = {
    "model.token_mixing": {"tied", "untied", "grouped", "grouped_views"},
    "model.channel_mixing": {"tied", "untied"},
}


def findings(ablation: Ablation) -> list[str]:
    """The paper's findings on the fields that vary in the table; those of other data say so."""
    places = [*ablation.report.rows, *ablation.report.columns]
    places += [name for axis in places for name in ablation.named.get(axis, ())]
    names = [name for name in FINDINGS if name in places and _is_asked(ablation, name)]
    found = [f"{FINDINGS[name]}{_caveat(ablation, name)}" for name in names]
    pairs = {
        one: text for one, text in COMPARED.items() if one[0] in places and {*one[1:]} <= _values(ablation, one[0])
    }
    return found + [f"{text}{_caveat(ablation, one[0])}" for one, text in pairs.items()]


def _values(ablation: Ablation, name: str) -> set[Any]:
    return set(ablation.axes.get(name, []))


def _is_asked(ablation: Ablation, name: str) -> bool:
    """Tell whether the table holds two of the values that the finding on a field is about."""
    values = ablation.axes.get(name, [])
    return len([value for value in values if value in VALUES.get(name, values)]) > 1


def _caveat(ablation: Ablation, name: str) -> str:
    if name not in DATA:
        return ""
    own = ", ".join(map(str, ablation.axes.get("data.source") or [default("data.source", ablation.base)]))
    return f" Found on {DATA[name]}, at the paper's sizes and lengths of training; on {own} it need not hold."
