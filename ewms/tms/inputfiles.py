"""What an order asks to have transferred, looked at again with its symbolic links followed.

HTCondor reads those files as the TMS's user, and follows links: a name that is innocent may lead to another taskforce's
envfile, with its queue tokens. (`submission` has judged the names themselves. Whoever can change a link afterwards is a
user of the access point; see docs/security.md.)
"""

import os
from collections.abc import Iterable
from pathlib import Path

from ewms.tms.errors import OrderRefused


def check_input_files(paths: Iterable[str], job_dir: Path) -> None:
    """Raise `OrderRefused` for a path that leads into the job directory; what is not there is HTCondor's to tell."""
    home = os.path.realpath(job_dir)
    for path in paths:
        # Not `Path.resolve`: links that lead in a circle are no error here.
        if "://" not in path and Path(os.path.realpath(path)).is_relative_to(home):
            raise OrderRefused(f"pilot_config.input_files: {path!r} leads into the TMS's own job directory")
