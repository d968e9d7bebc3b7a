"""What a verdict is worth, in sentences."""

from oddity_client import Calibration


def shortfalls(calibration: Calibration, of: str = "normal images") -> list[str]:
    """Why a verdict is not what was asked for, or is none; empty where it is. `of`: what calibrates."""
    if calibration.threshold is None:
        return [f"There is no verdict: {calibration.n} {of} are too few to calibrate."]
    found = []
    if not calibration.supported:
        found.append(
            f"A false-alarm rate of {calibration.requested:.2%} was asked for; {calibration.n} {of} support no finer "
            f"one than {calibration.false_alarm_rate:.2%}."
        )
    if calibration.biased:
        found.append(str(calibration.biased.get("detail", "The promise is biased.")))
    return found
