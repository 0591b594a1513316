"""What benchmarks do in processes of their own.

Guarantees: stdout holds the answer and nothing else. Does not: run on its own; see `benchmarks.__main__`.
"""

import sys

from benchmarks import memory
from benchmarks.durable import put_numbers


def main(arguments: list[str]) -> None:
    """`write PATH`, `artifacts URL COUNT FOLDER` or `holders URL COUNT AGENTS FOLDER`."""
    match arguments:
        case ["write", path]:
            for line in put_numbers(path, iter(sys.stdin)):
                sys.stdout.write(line)
                sys.stdout.flush()
        case ["artifacts", url, count, folder]:
            print(memory.artifacts(url, int(count), folder))
        case ["holders", url, count, agents, folder]:
            print(memory.holders(url, int(count), int(agents), folder))
        case _:
            sys.exit(f"unknown: {arguments}")


if __name__ == "__main__":
    main(sys.argv[1:])
