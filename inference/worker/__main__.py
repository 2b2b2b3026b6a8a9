"""The command `easel-worker`. It refuses a wrong configuration before it loads torch, which takes seconds."""

import gc
import os
import sys

from inference.worker.config import ConfigError, WorkerConfig


def main() -> None:
    try:
        config = WorkerConfig.from_env(os.environ)
    except ConfigError as error:
        sys.exit(f"easel-worker: {error}")
    # All that modules define stays: searching it for garbage takes a fifth of the CPU that loading them takes.
    gc.disable()
    from inference.worker.process import run

    gc.freeze()
    gc.enable()
    sys.exit(run(config))


if __name__ == "__main__":
    main()
