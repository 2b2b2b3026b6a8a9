#!/usr/bin/env python
"""Django's entry point; `easel` is the one to use."""

import os
import sys
from pathlib import Path

# Appended, never first: a folder named `platform` must not come before the standard library's module.
sys.path.append(str(Path(__file__).parent / "platform"))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "easel.settings")

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
