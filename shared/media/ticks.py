"""The clock of a clip: its index, its edits, and the pictures of one that is encoded anew.

Every millisecond is a whole number of its ticks, so that what is asked for is what the file says; so is a
picture of every usual frame rate, so that the edit before the first one ends where it is due.
"""

from __future__ import annotations

TICKS_PER_MS = 90
TICKS_PER_S = 1000 * TICKS_PER_MS
