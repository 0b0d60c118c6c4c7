"""How a job that writes rows ends: what is said on stderr, and the exit code."""

import signal
import sys
from collections.abc import Callable

from pipeline.ray_session import JobFailed


def exit_code(run: Callable[[], None], remains: str) -> int:
    """Runs a job: 0 = done, 1 = it failed, 2 = the settings or the input are wrong, 130 = it was stopped.

    remains: what becomes of a job that was stopped or failed, for the user.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `ray job stop` and cluster managers send it
    try:
        run()
    except KeyboardInterrupt:
        print(f"stopped; {remains}", file=sys.stderr)
        return 130
    except JobFailed as error:
        print(f"failed: {error}; {remains}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
