"""What holds for every test.

Guarantees: a failing property prints a blob that runs the same example again (`@reproduce_failure`).
Does not: hold fixtures of single rooms; those live beside their tests, and what users may want in `ccs_stream.testing`.
"""

from hypothesis import settings

# No deadline: examples share their machine with other work, and a slow second says nothing about the property.
settings.register_profile("ccs-stream", deadline=None, print_blob=True)
settings.load_profile("ccs-stream")

pytest_plugins = ["ccs_stream.testing.pytest_plugin"]
