"""The inference engine and the worker around it; README.md says what it owns and in which order to read it."""

import functools
import importlib.metadata
import logging

# While they are imported, before logging is configured, these warn on stderr about other versions and devices.
for _name in ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao"):
    logging.getLogger(_name).setLevel(logging.ERROR)

# diffusers and transformers each list the modules of all installed packages while they are imported: 0.6 s of CPU.
importlib.metadata.packages_distributions = functools.cache(importlib.metadata.packages_distributions)
