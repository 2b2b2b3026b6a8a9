"""The site of the portal with all of its pages.

Imported by what serves the portal, and not by each command and process: the pages take half a second of CPU.
"""

from importlib import import_module
from pkgutil import iter_modules

import easel.portal
from easel.portal.site import portal

# A page of the portal is there once its module is imported.
for _module in iter_modules(easel.portal.__path__, "easel.portal."):
    if _module.name.endswith("_pages"):
        import_module(_module.name)

__all__ = ["portal"]
