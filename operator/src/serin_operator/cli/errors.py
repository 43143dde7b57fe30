"""What the command line says when it is given something that it can not use."""


class InputError(Exception):
    """Wrong input: the text says what is wrong, where, and what to do. Ends the command with exit code 1."""
