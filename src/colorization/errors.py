"""The one exception that means "the person, not the program, has to change something"."""


class InputError(ValueError):
    """A mistake in what the user gave (a value, a file, a folder), told in one sentence.

    The entry points print the sentence and exit with code 2; library callers catch it as a ``ValueError``.
    """
