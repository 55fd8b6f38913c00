#!/usr/bin/env python3
"""Prints the primes below a number."""

import argparse
import sys


def primes(limit):
    sieve = bytearray([1]) * limit
    sieve[:2] = b"\0\0"[:limit]
    for number in range(2, int(limit**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, limit, number)))
    return [number for number, prime in enumerate(sieve) if prime]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("limit", type=int)
    arguments = parser.parse_args()
    if arguments.limit < 2:
        sys.exit("there are no primes below 2")
    for prime in primes(arguments.limit):
        print(prime)


if __name__ == "__main__":
    main()
