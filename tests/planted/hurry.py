"""A pytest plugin for the runs of suites.py: a property that fails is not shrunk, and is tried with the same examples.

In: nothing. Out: hypothesis's profile. Only whether a test fails is asked here, and shrinking takes minutes.
"""

from hypothesis import Phase, settings

settings.register_profile("planted", phases=(Phase.explicit, Phase.generate), derandomize=True)
settings.load_profile("planted")
