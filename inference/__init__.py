"""The engine and its worker."""

import logging

# While these are imported, before anything is configured, they warn on stderr of what other versions and devices need.
for _name in ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao"):
    logging.getLogger(_name).setLevel(logging.ERROR)
