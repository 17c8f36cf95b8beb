"""A rule of the code, and the change that takes it out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mutation:
    """A rule, and the change of one place in `file` that takes it out: `old`, found once, becomes `new`."""

    rule: str
    file: str
    old: str
    new: str
    test: str

    def applies_to(self, root: Path) -> bool:
        """Tell whether the rule stands where it is looked for, in the sources in a directory."""
        return (root / self.file).read_text().count(self.old) == 1

    def without_it(self, root: Path) -> str:
        """Return the text of the file without the rule."""
        return (root / self.file).read_text().replace(self.old, self.new)

    def apply(self, root: Path) -> None:
        """Take the rule out of the sources in a directory."""
        (root / self.file).write_text(self.without_it(root))
