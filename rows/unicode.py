"""Halves of surrogate pairs, which JSON can hold ("\\ud800") and no file, tokenizer or answer can take."""


def unicode_fault(text: str) -> str | None:
    """What is wrong with a text that is not valid Unicode, and where; None = nothing."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"{error.reason} at position {error.start}"
    return None


def printable(text: str) -> str:
    """The text with halves of surrogate pairs written out, so that an error that quotes one can be told."""
    return text.encode("utf-8", "backslashreplace").decode()
