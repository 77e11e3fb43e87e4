"""Man pages of all commands: python tools/manpages.py DIR"""

from __future__ import annotations

import sys
from pathlib import Path

from typer.main import get_command

from transfer.cli.main import app
from transfer.cli.manual import manual


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in manual(get_command(app)).items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
