"""A schedd helper whose queries hang while a file is there: `hanging_helper.py FILE COMMAND…` of a real helper."""

import json
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    flag, command = Path(sys.argv[1]), sys.argv[2:]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as real:
        assert real.stdin is not None
        assert real.stdout is not None
        for line in sys.stdin.buffer:
            if json.loads(line)["call"] == "query" and flag.exists():
                time.sleep(1000)
            real.stdin.write(line)
            real.stdin.flush()
            sys.stdout.buffer.write(real.stdout.readline())
            sys.stdout.buffer.flush()
        real.stdin.close()


if __name__ == "__main__":
    main()
