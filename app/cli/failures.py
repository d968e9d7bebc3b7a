"""What ends a command: a sentence for people and an exit code, never a traceback.

CommandFailed           1, or 2 when the command was given wrongly
└── Refused             the service answered with a problem
"""


class CommandFailed(Exception):
    """The command cannot go on; `exit_code` is 2 when what was typed is at fault, otherwise 1."""

    def __init__(self, sentence: str, exit_code: int = 1) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class Refused(CommandFailed):
    """The service answered with an error; `status` and `code` are those of its problem+json."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail, 2 if status == 422 else 1)
        self.status = status
        self.code = code
