"""How long a test waits for a process of its own.

The limit guards against hanging, not against slowness: on a busy machine a job takes several times as long.
The limit of a whole test, in pyproject.toml, is longer, so that the process's output is shown.
"""

PROCESS_S = 600
