"""A helper program that misbehaves when it is told to: the constraint of a query (or the reason of an act) says how.

Started with a file to which it appends its pid.
"""

import json
import os
import signal
import sys
import time


def main() -> None:  # noqa: C901, PLR0912  one case a misbehaviour
    with open(sys.argv[1], "a") as pids:  # noqa: PTH123
        print(os.getpid(), file=pids)
    for line in sys.stdin:
        request = json.loads(line)
        how, _, rest = (request["args"].get("constraint") or "").partition(" ")
        reply = {"id": request["id"], "ok": [{"pid": os.getpid(), "call": request["call"], "args": request["args"]}]}
        match how:
            case "hang":
                time.sleep(60)
            case "slow":
                time.sleep(float(rest))
            case "die":
                sys.exit("dying words")
            case "end":
                sys.exit(0)
            case "killed" | "fault":
                os.kill(os.getpid(), signal.SIGKILL if how == "killed" else signal.SIGSEGV)
            case "crash":
                print(1 // 0)
            case "garbage":
                sys.stdout.write("Warning: not JSON\n")
            case "half":
                sys.stdout.write('{"id": 1, "ok": [')
                sys.stdout.flush()
                sys.exit(3)
            case "flood":
                sys.stderr.write("x" * 1_000_000 + "\n")
            case "strange":
                reply["id"] = 99
            case "large":
                reply["ok"] = [{"text": "x" * 3_000_000}]
            case "refused" | "unreachable" | "bug":
                reply = {"id": request["id"], "error": {"kind": how, "message": rest, "trace": "where it was"}}
            case "stdin-ignored":
                sys.stdout.write(json.dumps(reply) + "\n")
                sys.stdout.flush()
                time.sleep(60)
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
