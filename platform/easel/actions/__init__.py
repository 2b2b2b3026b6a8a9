"""The actions of operators, each declared once: its form, its command and its audit record come from the declaration.

The command line builds its commands from these modules before Django is set up, so that `--help` needs no database:
they import models inside functions only. Roles, which are no actions, are in `roles.py`.
"""
