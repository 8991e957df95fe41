"""Failures of what surrounds a command, for which nobody has found better words."""

from __future__ import annotations

from flowlm.errors import reason


def unforeseen(error: Exception) -> str | None:
    """A sentence for the person at the keyboard; None for an error of the program itself."""
    match error:
        case OSError():
            names = [str(n) for n in (error.filename, error.filename2) if n is not None]
            place = " and ".join(names) or "Something"
            why = error.strerror or reason(error)
            return (
                f"{place} cannot be read or written ({why}): check the name, its permissions, and "
                "the space there."
            )
        case UnicodeDecodeError():
            return f"Something that should be UTF-8 is not ({reason(error)}): convert it first."
        case UnicodeError():
            return f"Something cannot be written in its encoding ({reason(error)}): use UTF-8."
        case RecursionError():
            return "Something is nested too deeply to be read: check the files that were named."
        case ValueError() if "embedded null" in str(error):
            return "A name has a NUL byte in it: no file can be called so."
        case MemoryError() | RuntimeError() if _is_of_memory(error):
            return (
                f"There is not enough memory ({reason(error)}): ask for less at once, such "
                "as a smaller --num, --train.batch or --train.micro-batch."
            )
    return None


def _is_of_memory(error: Exception) -> bool:
    said = str(error)  # torch has no class of its own for a CPU's memory
    return isinstance(error, MemoryError) or "out of memory" in said or "allocate memory" in said
