"""Why a run fails, and how its process ends."""

SUCCEEDED, FAILED, USAGE, STOPPED = 0, 1, 2, 3


class Failure(Exception):
    """A reason in the shape of OpenAI's job errors: `code` is one of the contract's, `param` a field of the job."""

    def __init__(self, code: str, message: str, param: str | None = None):
        super().__init__(message)
        self.code, self.message, self.param = code, message, param

    def to_json(self) -> dict:
        return {"code": self.code, "message": self.message, "param": self.param}


class UsageError(Exception):
    """The command line or the job file is wrong; nothing was written."""
