"""What a process loads before it serves: nine of them start together, and again after every kill."""

import subprocess
import sys

# Each takes a good part of a second, and is for reports, exports and documents alone.
_LATER = {"scipy", "pyarrow", "reportlab", "torch", "diffusers"}
_START = f"""
import sys
import django
django.setup()
import easel.asgi, easel.urls
print(*sorted({_LATER} & sys.modules.keys()))
"""


def test_a_process_of_the_control_plane_starts_without_what_only_reports_need():
    done = subprocess.run([sys.executable, "-c", _START], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
