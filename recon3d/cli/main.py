"""The `recon3d` command: one Typer application, one file a command, heavy imports late."""

from __future__ import annotations

import os
import sys

import typer

from recon3d.cli import bench, compare, demo, doctor, enhance, live, model, run, train, view

# The libraries below print start-up chatter of their own on standard error.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GLOG_minloglevel", "3")
# The matrices here are small: a second BLAS thread waits more than it works, and takes the core
# from the threads over views and tiles.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

app = typer.Typer(
    name="recon3d",
    help="A short, bad, many-angled clip of a face in; a textured 3D mesh, a frontal view and a "
    "map of what was seen and what was guessed out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("compare")(compare.compare)
app.command("live")(live.live)
app.command("view")(view.view)
app.command("enhance")(enhance.enhance)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.add_typer(model.app, name="model")
app.add_typer(train.app, name="train")


def _version(value: bool) -> None:
    if value:
        from recon3d import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status is that of the output contract.

    0 done; 1 no usable face; 2 the call or the input is wrong (one line on standard error); 3 a
    fault of ours; 130 interrupted.
    """
    try:
        # Typer raises its usage errors only when told not to end the process itself.
        status = app(args=arguments, standalone_mode=False)
    except KeyboardInterrupt as stop:
        why = str(stop) or "what is finished is valid, --resume goes on from it"
        sys.stderr.write(f"interrupted; {why}\n")
        status = 130
    except Exception as error:
        status = _status_of(error)
    status = status if isinstance(status, int) else 0
    if arguments is None:
        sys.stdout.flush()
        sys.exit(status)
    return status


def _status_of(error: Exception) -> int:
    from recon3d.errors import NoFaceError, Recon3DError

    if hasattr(error, "format_message"):
        text = error.format_message()
        if text:
            sys.stderr.write(f"recon3d: {text} (see recon3d --help)\n")
        return int(getattr(error, "exit_code", 2))
    if type(error).__name__ == "Abort":
        return 130
    if isinstance(error, NoFaceError):
        sys.stderr.write(f"recon3d: {error}\n")
        return 1
    if isinstance(error, Recon3DError):
        sys.stderr.write(f"recon3d: {error}\n")
        return 2
    import traceback

    text = traceback.format_exc()
    folder = getattr(error, "recon3d_out", None)
    where = ""
    if folder is not None:
        try:
            with open(os.path.join(folder, "error.log"), "w", encoding="utf-8") as stream:
                stream.write(text)
            where = f" (traceback in {os.path.join(folder, 'error.log')})"
        except OSError:
            pass
    if not where:
        sys.stderr.write(text)
    sys.stderr.write(f"recon3d: a fault of ours: {type(error).__name__}: {error}{where}\n")
    return 3


if __name__ == "__main__":
    main()
