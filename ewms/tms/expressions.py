"""Let HTCondor itself look at a submission's expressions before it is submitted."""

from ewms.tms.condor.base import CondorRefused, Schedd
from ewms.tms.errors import OrderRefused
from ewms.tms.submission import Submission


async def check_expressions(schedd: Schedd, submission: Submission) -> None:
    """Find what HTCondor would find only when it makes the first proc, or the last, or never.

    Raises:
        OrderRefused: with HTCondor's own words.
        CondorUnreachable: the helper does not answer.
    """
    for name, expression in submission.expressions.items():
        try:
            await schedd.parse(expression)
        except CondorRefused as refusal:
            raise OrderRefused(f"{name}: HTCondor cannot parse {expression!r}: {refusal}") from refusal
    for name, expression in submission.numbers:
        try:
            value = await schedd.evaluate(expression)
        except CondorRefused as refusal:
            raise OrderRefused(f"{name}: HTCondor cannot evaluate {expression!r}: {refusal}") from refusal
        if type(value) is not int:
            raise OrderRefused(f"{name}: {expression!r} is {value!r}, not a whole number")
