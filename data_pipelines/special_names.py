"""Class names that name no class: the background, and what nobody has labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

Meaning: TypeAlias = Literal["background", "ignored", "rest"]
"""background: none of the classes. ignored: nobody knows. rest: something else, which is background or ignored."""

_MEANINGS: Mapping[str, Meaning] = {
    **dict.fromkeys(("background", "backgrounds", "backgroundclass", "bg", "none", "noclass", "nothing"), "background"),
    **dict.fromkeys(("unlabelled", "unlabeled", "notlabelled", "notlabeled", "nolabel", "unannotated"), "ignored"),
    **dict.fromkeys(("void", "ignore", "ignored", "ignorelabel", "ignoreregion", "dontcare", "donotcare"), "ignored"),
    **dict.fromkeys(
        ("unknown", "undefined", "unclassified", "unlabel", "nodata", "novalue", "missing", "invalid"), "ignored"
    ),
    **dict.fromkeys(("null", "outofroi", "egovehicle", "rectificationborder"), "ignored"),
    **dict.fromkeys(("other", "others", "rest", "misc", "miscellaneous", "everythingelse"), "rest"),
}


def usual_meaning(name: str) -> Meaning | None:
    """What people mean by a class of this name, in any spelling (`_background_`, `Don't care`); None: a class."""
    return _MEANINGS.get("".join(c for c in name.casefold() if c.isalnum()))


def meanings(names: Sequence[str]) -> dict[str, Literal["background", "ignored"]]:
    """The names in a class list that name no class, and what each is.

    "other" is the background of a list that has no name for it, else (things that were labelled, but not as the
    classes) ignored.
    """
    usual = {name: meaning for name in names if (meaning := usual_meaning(name)) is not None}
    has_background = "background" in usual.values()
    rest: Literal["background", "ignored"] = "ignored" if has_background else "background"
    return {name: rest if meaning == "rest" else meaning for name, meaning in usual.items()}
