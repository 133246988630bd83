"""The start of the command: it installs the signal handlers first, then imports what takes seconds to import."""

from pipelines.command import interrupts


def main() -> None:
    """The entry point of `devin-sessions` and of `python -m pipelines`."""
    interrupts.install_handlers()
    from pipelines.command.main import main as command

    command()


if __name__ == "__main__":
    main()
