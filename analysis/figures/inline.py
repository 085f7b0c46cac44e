"""A figure as a part of a page: in the page's colours, light or dark, with its values under the pointer."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

from analysis.figures.style import COLOURS, DIM, GRID, Drawn

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# What the page's style sheet calls the colours.
VARIABLES = {
    **{colour: f"var(--c{place})" for place, colour in enumerate(COLOURS)},
    "#000000": "currentColor",
    "#ffffff": "var(--card)",
    DIM: "var(--dim)",
    GRID: "var(--line)",
}
POINTS_AN_EM = 12  # in a browser
LEAST = 0.85  # of its width to which a figure is made smaller, before it scrolls: then letters have 9 pixels
PAPER = "patch_1"  # what Matplotlib calls the ground of a figure, which it draws first
REACH = 7  # points around a mark in which the pointer shows its value


def inline(drawn: Drawn, prefix: str) -> str:
    """The SVG element of a figure. Args: prefix: of its ids, another one for each figure of a page."""
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK)
    root = ET.fromstring(drawn.files["svg"])
    for child in list(root):
        if child.tag.endswith(("metadata", "}style")) or _is_style(child):
            root.remove(child)
    _remove_paper(root)
    _add_values(root, drawn.values)
    for element in root.iter():
        for name, value in element.attrib.items():
            element.set(name, _renamed(name, value, prefix))
    width_em = float(root.attrib.pop("width").removesuffix("pt")) / POINTS_AN_EM
    del root.attrib["height"]
    root.set("style", f"max-width: {width_em:.1f}rem; min-width: {LEAST * width_em:.1f}rem")
    words = {"role": "img", "aria-label": f"{drawn.title}; described below it", "fill": "currentColor"}
    for name, value in {**words, "stroke-linejoin": "round", "stroke-linecap": "butt"}.items():
        root.set(name, value)
    return ET.tostring(root, encoding="unicode")


def _is_style(element: ET.Element) -> bool:
    """Tell whether an element holds nothing but rules for all elements of a document, which a page is too."""
    return element.tag == f"{{{SVG}}}defs" and [child.tag for child in element] == [f"{{{SVG}}}style"]


def _remove_paper(root: ET.Element) -> None:
    """Remove the white ground of a figure, so that a page's own ground shows."""
    for group in root.iter(f"{{{SVG}}}g"):
        for child in list(group):
            if child.get("id") == PAPER:
                group.remove(child)


def _renamed(name: str, value: str, prefix: str) -> str:
    """An attribute in the colours of the page, and with ids that no other figure has."""
    if name == "id":
        return f"{prefix}{value}"
    if name == f"{{{XLINK}}}href" and value.startswith("#"):
        return f"#{prefix}{value[1:]}"
    if "#" in value:
        value = value.replace("url(#", f"url(#{prefix}")
        for colour, variable in VARIABLES.items():
            value = value.replace(colour, variable)
    return value


def _add_values(root: ET.Element, values: Mapping[str, Sequence[str]]) -> None:
    """Give each mark its value, and an area around it that is easy to meet."""
    for group in root.iter(f"{{{SVG}}}g"):
        texts = values.get(group.get("id", ""))
        if texts is None:
            continue
        places = [(parent, mark) for parent in group.iter() for mark in parent if mark.tag == f"{{{SVG}}}use"]
        for (parent, mark), text in zip(places, texts, strict=True):
            at = {name: mark.get(f"{letter}", "0") for name, letter in (("cx", "x"), ("cy", "y"))}
            area = ET.SubElement(parent, f"{{{SVG}}}circle", {**at, "r": f"{REACH}", "class": "value"})
            ET.SubElement(area, f"{{{SVG}}}title").text = text
