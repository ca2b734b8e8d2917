"""A disk as a network makes it: late, busy at times, with answers that get lost on their way."""

import errno
import os
import random
import time


def mount(seed, worst=0.004, refused=0.2):
    """Make this process's disk slow, from now on.

    Args:
        seed: Of the delays and refusals.
        worst: The longest delay of one call, in seconds.
        refused: The share of renames that are refused; of these, every other one was done all the same.

    Returns:
        How many renames were refused so far, by the kind of refusal: "before" or "after" they were done.
    """
    rng, counts = random.Random(seed), {"before": 0, "after": 0}
    replace, fsync, stat, scandir = os.replace, os.fsync, os.stat, os.scandir

    def late(call):
        def slow(*args, **kwargs):
            time.sleep(rng.random() * worst)
            return call(*args, **kwargs)

        return slow

    def moody(source, target, **kwargs):
        time.sleep(rng.random() * worst)
        if rng.random() >= refused:
            return replace(source, target, **kwargs)
        when = "before" if rng.random() < 0.5 else "after"
        if when == "after":
            replace(source, target, **kwargs)
        counts[when] += 1
        number = rng.choice([errno.ESTALE, errno.EBUSY])
        raise OSError(number, os.strerror(number))

    os.replace, os.fsync, os.stat, os.scandir = moody, late(fsync), late(stat), late(scandir)
    return counts
