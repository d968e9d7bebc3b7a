"""What ends a command: a sentence for people and an exit code, never a traceback.

CommandFailed           1, or 2 when the command was given wrongly

What the client raises ends a command in the same way: 2 where the service found the parameters wrong, otherwise 1.
"""


class CommandFailed(Exception):
    """The command cannot go on; `exit_code` is 2 when what was typed is at fault, otherwise 1."""

    def __init__(self, sentence: str, exit_code: int = 1) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
