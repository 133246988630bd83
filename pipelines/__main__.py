"""The start of the command. Signals are handled first, since the other imports take seconds."""

from pipelines.command import interrupts


def main() -> None:
    """The entry point of `devin-sessions` and of `python -m pipelines`."""
    interrupts.begin()
    from pipelines.command.cli import main as command

    command()


if __name__ == "__main__":
    main()
