"""Reads a page as a browser would, as far as tests of its text, its tables and what it refers to need it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_VOID = {"meta", "link", "br", "hr", "img", "input", "source", "col"}
_FETCHES = ("src", "href", "srcset", "action", "data", "poster", "xlink:href", "background", "formaction", "ping")


class Page(HTMLParser):
    """A page, or a part of one.

    Attributes
    ----------
    tags : list of (str, dict)
        Every element, with its attributes.
    tables : list
        Of each table its lines, of each line the text of its cells.
    text : str
        What a person reads, with single spaces.
    lists : list of str
        The text of each element of a list.
    code : list of str
        The text of each piece of code, as it stands.
    scripts : list of str
    marked : str
        The text with terms of a list of facts between \\x02 and \\x03, their descriptions up to \\x04.
    references : list of str
        Whatever leads out of the page: addresses other than ``data:`` and ``#``, url() and @import of its styles.
    """

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.tables: list[list[list[str]]] = []
        self.references: list[str] = []
        self._open: list[str] = []
        self._parts: list[str] = []
        self._cell = False
        self.lists: list[str] = []
        self.code: list[str] = []
        self.scripts: list[str] = []
        self.feed(content)
        self.close()
        assert not self._open, f"never closed: {self._open}"
        self.marked = " ".join("".join(self._parts).split())
        self.text = re.sub("[\x02\x03\x04]", " ", self.marked)

    def of(self, name: str) -> list[dict[str, str]]:
        """Attributes of all elements of a name."""
        return [attributes for tag, attributes in self.tags if tag == name]

    def handle_starttag(self, tag, attrs):
        attributes = {name: value or "" for name, value in attrs}
        assert len(attributes) == len(attrs), f"an attribute of {tag} is there twice"
        self.tags.append((tag, attributes))
        for name, value in attributes.items():
            if name in _FETCHES and not value.startswith(("data:", "#")):
                self.references.append(value)
            if name == "style":
                self._style(value)
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True
        elif tag in ("li", "code", "script"):
            {"li": self.lists, "code": self.code, "script": self.scripts}[tag].append("")
        elif tag == "dt":
            self._parts.append("\x02")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> crosses another element"
        self._parts.append({"dt": "\x03", "dd": "\x04"}.get(tag, ""))
        if tag in ("td", "th"):
            self._cell = False
            self.tables[-1][-1][-1] = " ".join(self.tables[-1][-1][-1].split())

    def handle_data(self, data):
        inside = self._open[-1] if self._open else ""
        for tag, texts in (("li", self.lists), ("code", self.code), ("script", self.scripts)):
            if tag in self._open:
                texts[-1] += data
        if inside == "style":
            self._style(data)
        elif inside != "script":
            self._parts.append(data)
            if self._cell:
                self.tables[-1][-1][-1] += data

    def _style(self, text):
        found = re.findall(r"url\(\s*['\"]?([^'\")]*)|@import\s+([^;]*)", text)
        self.references += [a or b for a, b in found if not (a or b).startswith(("data:", "#"))]
