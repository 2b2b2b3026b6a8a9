"""The engine, which is what lies directly in here; `worker/` serves it, `tools/` run it alone.

To read it, in this order: `scheduler` and `residency` are its policy, `engine` its loop, with `rows`, `stage` and
`attribution`; `packed` and `slots` are the forward, whose adapters `adapters` checks. `model` is one model's parts.
"""

import logging

# While these are imported, before anything is configured, they warn on stderr of what other versions and devices need.
for _name in ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao"):
    logging.getLogger(_name).setLevel(logging.ERROR)
