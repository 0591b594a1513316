"""The child processes of the benchmarks.

Guarantees: stdout holds the answer and nothing else. Does not: choose what to measure; `benchmarks.__main__` does.
"""

import sys

from benchmarks import kafka, kafka_floor, kafka_start, memory
from benchmarks.durable import put_numbers


def main(arguments: list[str]) -> None:
    """One command for each case; the caller of each is where its answer is used."""
    match arguments:
        case ["write", path]:
            for line in put_numbers(path, iter(sys.stdin)):
                sys.stdout.write(line)
                sys.stdout.flush()
        case ["artifacts", url, count, folder]:
            print(memory.artifacts(url, int(count), folder))
        case ["holders", url, count, agents, folder]:
            print(memory.holders(url, int(count), int(agents), folder))
        case ["see", url, count]:
            kafka.see(url, int(count))
        case ["coordinate", url, count]:
            print(kafka_start.coordinate(url, int(count)))
        case ["fill", url, count]:
            kafka_start.fill(url, int(count))
        case ["relay", servers, source, target]:
            kafka_floor.relay(servers, source, target)
        case _:
            sys.exit(f"unknown: {arguments}")


if __name__ == "__main__":
    main(sys.argv[1:])
