"""Man pages, made from the commands themselves: one for `transfer`, one for each command."""

from __future__ import annotations

from typing import Any

from transfer import __version__


def escaped(text: str) -> str:
    """Text as roff takes it: no line begins with a dot, no backslash is a command."""
    out = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line.startswith((".", "'")) else line for line in out.split("\n"))


def page(name: str, command: Any, context: Any) -> str:
    """One page in man(7)."""
    title = name.replace(" ", "-")
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [
        f'.TH {title.upper()} 1 "" "transfer {__version__}" "transfer"',
        ".SH NAME",
        f"{escaped(title)} \\- {escaped(command.get_short_help_str(200).rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {escaped(name)}",
        escaped(usage),
        ".SH DESCRIPTION",
        *(escaped(part.strip()) for part in (command.help or "").split("\n") if part.strip()),
        ".SH OPTIONS",
    ]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record:
            lines += [".TP", f"\\fB{escaped(record[0])}\\fR", escaped(record[1]) or "\\&"]
    if hasattr(command, "commands"):
        lines.append(".SH COMMANDS")
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found and not found.hidden:
                lines += [".TP", f"\\fB{escaped(inner)}\\fR", escaped(found.get_short_help_str(200))]
    if command.epilog:
        lines += [".SH EXAMPLES", ".nf"]
        lines += [escaped(line.strip()) for line in command.epilog.split("\n")[2:]]
        lines.append(".fi")
    lines += [
        ".SH EXIT STATUS",
        "0 if it did what was asked; each failure has its number (docs/operators\\-guide.md, Exit codes).",
    ]
    return "\n".join(lines) + "\n"


def manual(root: Any) -> dict[str, str]:
    """Every page, by its file's name. `root`: the command of all commands."""
    return pages("transfer", root)


def pages(name: str, command: Any, parent: Any = None) -> dict[str, str]:
    """This command's page and those of the commands in it, by their file names."""
    context = command.make_context(name.rpartition(" ")[2], [], parent=parent, resilient_parsing=True)
    out = {f"{name.replace(' ', '-')}.1": page(name, command, context)}
    if hasattr(command, "commands"):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found and not found.hidden:
                out |= pages(f"{name} {inner}", found, context)
    return out
