"""Unbound and dnsdist behind tls:// and https://. What is not installed is skipped, loudly."""

import suite
from peers import Peers


class Unbound(Peers):
    program = "unbound"


class Dnsdist(Peers):
    program = "dnsdist"


del Peers

if __name__ == "__main__":
    suite.run()
