"""Commands of one Easel without a new interpreter each: a process that has imported them all, and forks for each.

Importing Django and the commands costs 1.5 seconds of CPU. A forked command has arguments, environment, streams and an
exit code of its own, as it has when a shell starts it.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class Commands:
    """Runs `easel` commands in the environment `env`, whose servers are up."""

    def __init__(self, env: dict[str, str]) -> None:
        argv = [sys.executable, "-m", "tests.commands"]
        self._server = subprocess.Popen(
            argv, env=env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """The result of one command."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with tempfile.TemporaryDirectory(prefix="easel-command-") as folder:
            (Path(folder) / "stdin").write_text(stdin)
            self._server.stdin.write(json.dumps([folder, arguments]) + "\n")
            self._server.stdin.flush()
            code = int(self._server.stdout.readline())
            out, err = ((Path(folder) / name).read_text() for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(arguments, code, out, err)

    def output(self, *arguments: str) -> str:
        """What a command prints that succeeds."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        self._server.communicate()


def _serve() -> None:
    _import_all()
    for line in sys.stdin:
        folder, arguments = json.loads(line)
        child = os.fork()
        if not child:
            _command(Path(folder), arguments)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _import_all() -> None:
    import click

    from easel.cli.django_ready import django_ready
    from easel.cli.main import cli

    before = dict(os.environ)
    context = click.Context(cli)
    with django_ready():
        for name in cli.list_commands(context):
            cli.get_command(context, name)
    # A command looks for the servers itself.
    os.environ.clear()
    os.environ.update(before)


def _command(folder: Path, arguments: list[str]) -> None:
    from easel.cli.main import main

    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        flags = os.O_RDONLY if name == "stdin" else os.O_WRONLY | os.O_CREAT
        os.dup2(os.open(folder / name, flags, 0o600), descriptor)
    sys.argv = ["easel", *arguments]
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve()
