"""Copies of this tree to plant violations in.

Guarantees: a copy keeps the links of the package as links, so that a tool meets in it what it meets in the checkout.
Does not: copy tests, documents or anything that no check of the rooms looks at.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "ccs_stream"
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())
LINKED_ROOMS = [room for room in ROOMS if (PACKAGE / room).is_symlink()]


def copy_tree(target: Path) -> Path:
    """Copy the package, the folders its links lead to and the tools' configuration."""
    shutil.copy2(ROOT / "pyproject.toml", target)
    for folder in ("ccs_stream", *LINKED_ROOMS):
        shutil.copytree(
            ROOT / folder, target / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.avsc")
        )
    return target


def run_tool(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment; its output is kept whole for assertions."""
    command = [str(Path(sys.executable).with_name(name)), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)
