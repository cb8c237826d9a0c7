"""Say whether this tree may be released under a tag: `python .ci/release.py v1.2.3`.

The tag, `fastprod/_version.py` and the newest section of CHANGELOG.md must name the same version, and that section a
date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def obstacles(tag: str, root: Path = ROOT) -> list[str]:
    """What keeps the tree below `root` from being released as `tag`; empty if nothing does."""
    version = re.search(r'^__version__ = "(.+)"$', (root / "fastprod" / "_version.py").read_text(), re.MULTILINE)
    newest = re.search(r"^## \[(.+)\] - (.+)$", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    if version is None or newest is None:
        return ["fastprod/_version.py states no version, or CHANGELOG.md has no section '## [VERSION] - DATE'"]
    found = []
    if tag != f"v{version[1]}":
        found.append(f"the tag is {tag}, and fastprod/_version.py states {version[1]}: the tag must be v{version[1]}")
    if newest[1] != version[1]:
        found.append(f"the newest section of CHANGELOG.md is of {newest[1]}, not of {version[1]}")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", newest[2]):
        found.append(f"the newest section of CHANGELOG.md is dated {newest[2]!r}, not YYYY-MM-DD")
    return found


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    found = obstacles(sys.argv[1])
    if found:
        sys.exit("\n".join(found))
    print(f"{sys.argv[1]} may be released")


if __name__ == "__main__":
    main()
