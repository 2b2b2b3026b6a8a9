"""`easel replay`: run a mixed batch from a trace file and report the images and the cost of each step.

A trace is JSON, such as

    {"requests": [
      {"prompt": "a red circle", "width": 256, "height": 256, "steps": 8, "seed": 1, "tenant": "acme"},
      {"prompt": "a blue star", "width": 384, "height": 256, "steps": 6, "seed": 2, "join_step": 2,
       "adapters": [{"name": "outline", "scale": 0.7}, {"name": "mine.safetensors"}]}
    ]}

Each request has `prompt`, `width`, `height`, `steps` and `seed`, and may have

- `tenant`, a name;
- `join_step`, the number of the step before which it arrives (default 0, the first);
- `cancel_step`, the number of the step before which it is canceled;
- `adapters`, each with a `scale` (default 1.0). A name is that of an adapter of the demo model (outline, mosaic), or
  the path, relative to the trace, of a LoRA file in diffusers' format.

Without a file, the demo model's mixed batch is run. A bad trace is refused with the place of the error and a code,
exit status 2.
"""

import argparse
import sys
from pathlib import Path

from inference.demo_model import CHECKPOINT_DIR
from inference.tools.trace import TraceError, read_requests

EXAMPLE = CHECKPOINT_DIR.parent / "traces" / "mixed.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="easel replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trace", nargs="?", type=Path, default=EXAMPLE, help="a trace file")
    parser.add_argument("--model", default=str(CHECKPOINT_DIR), help="a folder or a hub id (default: the demo model)")
    parser.add_argument("--check", action="store_true", help="also generate each request alone, and compare")
    parser.add_argument("-o", "--output", type=Path, default=Path("replay"), help="the folder for the pictures")
    args = parser.parse_args()
    try:
        read_requests(args.trace)
    except TraceError as error:
        print(f"easel replay: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    # Loading torch and the model takes many seconds, which a bad trace is refused before.
    from inference.tools.replaying import replay_trace

    replay_trace(args)


if __name__ == "__main__":
    main()
