"""What an index generation must show before it may answer queries."""

from pydantic import BaseModel

from headwater.errors import VerificationFailed

MIN_COVERAGE = 0.99
MIN_INDEX_RECALL = 0.95


class Check(BaseModel):
    """One requirement: what was measured, and the bound it must meet."""

    name: str
    passed: bool
    measured: float | str
    required: float | str


class VerificationReport(BaseModel):
    """All checks of one generation; it passes when each does."""

    version: str
    checks: list[Check]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def require(self) -> None:
        """Raise unless every check passed.

        Raises:
            VerificationFailed: naming each failed check.
        """
        failed = [
            f"{check.name} is {check.measured}, needs {check.required}" for check in self.checks if not check.passed
        ]
        if failed:
            raise VerificationFailed(f"generation {self.version} failed verification: " + "; ".join(failed))


def at_least(name: str, measured: float, bound: float) -> Check:
    """Return the check that `measured` reaches `bound`."""
    return Check(name=name, passed=measured >= bound, measured=round(measured, 4), required=f">= {bound}")
