"""Wrong programs that somebody reported, each from another thread."""

from tests.reported import adam, others, sums

PROGRAMS = (*sums.PROGRAMS, *adam.PROGRAMS, *others.PROGRAMS)
"""All of them."""
