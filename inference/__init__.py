"""The inference engine and the worker around it; README.md says what it owns and in which order to read it."""

import logging

# While they are imported, before logging is configured, these warn on stderr about other versions and devices.
for _name in ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao"):
    logging.getLogger(_name).setLevel(logging.ERROR)
