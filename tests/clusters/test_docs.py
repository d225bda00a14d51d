"""docs/clusters.md lists every key of every kind of cluster, as the schema has them.

``python tests/clusters/test_docs.py`` writes the list again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from dgmm.clusters.config import _parts
from dgmm.clusters.schema import KINDS, Part

PAGE = Path(__file__).parents[2] / "docs" / "clusters.md"
LIST = re.compile(r"(<!-- keys: .*? -->\n).*?(<!-- end of keys -->)", re.DOTALL)


def keys(model: type[Part], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each key and its line."""
    for name, field in model.model_fields.items():
        parts = list(_parts(field.annotation))
        if field.description is None and parts:
            yield from keys(parts[0], f"{prefix}{name}.")
        elif name != "kind":
            default = (
                "" if field.is_required() or field.default in (None, [], {}) else f" (default `{field.default}`)"
            )
            text = f"{field.description}{' — required' if field.is_required() else ''}{default}"
            yield f"{prefix}{name}", text


def table() -> str:
    kinds: dict[tuple[str, str], list[str]] = {}
    for kind, model in KINDS.items():
        for line in keys(model):
            kinds.setdefault(line, []).append(kind)
    lines = ["| key | meaning | kinds |", "|---|---|---|"]
    for (key, text), names in kinds.items():
        lines.append(f"| `{key}` | {text} | {'all' if len(names) == len(KINDS) else ', '.join(names)} |")
    return "\n".join(lines) + "\n"


def test_every_key_is_documented():
    assert LIST.sub(lambda found: found[1] + table() + found[2], PAGE.read_text()) == PAGE.read_text()
    assert "| `workers.wait` |" in PAGE.read_text()


if __name__ == "__main__":
    PAGE.write_text(LIST.sub(lambda found: found[1] + table() + found[2], PAGE.read_text()))
