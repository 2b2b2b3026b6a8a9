"""What operators do, declared once: the portal's form, the command and the audit record come from a declaration.

The command line builds its commands from these modules before Django is set up, so that `--help` needs no database:
they import models inside functions only.
"""
