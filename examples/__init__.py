"""Small programs that show one thing each, run as `python -m examples.NAME`.

Guarantees: every one runs on one laptop, without a broker and without an API key.
Does not: belong to the installed package.
"""
